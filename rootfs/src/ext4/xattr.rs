//! Extended attributes as ext4 stores them: in what is left of the inode, the rest in one block.
//!
//! ```text
//! inode   magic 4 │ entries → … 0000 … ← values        offsets count from the first entry
//! block   magic 4 │ references 4 │ blocks 4 │ hash 4 │ checksum 4 │ 0 × 12 │ entries → … ← values
//! entry   name length 1 │ prefix 1 │ value offset 2 │ 0 × 4 │ value size 4 │ hash 4 │ name, padded
//! ```
//! POSIX access control lists come in the kernel's exchange format and are stored in ext4's own.

use super::types::{BLOCK_SIZE, Checksum, INLINE_XATTR_SIZE, Put};
use crate::error::Problem;
use crate::layer::Xattr;

const MAGIC: u32 = 0xea02_0000;
const BLOCK_HEADER: usize = 32;
const ACL_ACCESS: u8 = 2;
const ACL_DEFAULT: u8 = 3;
/// Attributes are named by their prefix's number and the rest.
const PREFIXES: [(&[u8], u8); 4] = [
    (b"user.", 1),
    (b"trusted.", 4),
    (b"security.", 6),
    (b"system.", 7),
];

/// An inode's attributes in ext4's terms.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Encoded {
    pub(crate) inline: Vec<Attribute>,
    pub(crate) block: Vec<Attribute>,
    /// Permission bits that an access control list dictates: mask (0o770 part) and value.
    pub(crate) mode: Option<(u16, u16)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attribute {
    prefix: u8,
    name: Box<[u8]>,
    value: Box<[u8]>,
}

impl Attribute {
    fn entry_size(&self) -> usize {
        16 + self.name.len().next_multiple_of(4)
    }

    fn size(&self) -> usize {
        self.entry_size() + self.value.len().next_multiple_of(4)
    }

    /// Over name and value; lets the kernel find equal blocks.
    fn hash(&self) -> u32 {
        let name = self
            .name
            .iter()
            .fold(0_u32, |hash, &byte| hash.rotate_left(5) ^ u32::from(byte));
        self.value.chunks(4).fold(name, |hash, bytes| {
            let mut word = [0; 4];
            word[..bytes.len()].copy_from_slice(bytes);
            hash.rotate_left(16) ^ u32::from_le_bytes(word)
        })
    }
}

/// Decides what goes where. Attributes of name spaces that Linux does not have are left out, as a
/// kernel would refuse them.
pub(crate) fn encode(xattrs: &[Xattr]) -> Result<Encoded, Problem> {
    let mut encoded = Encoded::default();
    let mut attributes = Vec::new();
    for xattr in xattrs {
        if let Some(attribute) = attribute(xattr, &mut encoded.mode)? {
            attributes.push(attribute);
        }
    }
    attributes
        .sort_by(|a, b| (a.prefix, a.name.len(), &a.name).cmp(&(b.prefix, b.name.len(), &b.name)));
    let (mut inline, mut block) = (4 + 4, BLOCK_HEADER + 4);
    for attribute in attributes {
        if inline + attribute.size() <= INLINE_XATTR_SIZE {
            inline += attribute.size();
            encoded.inline.push(attribute);
        } else {
            block += attribute.size();
            encoded.block.push(attribute);
        }
    }
    if block > BLOCK_SIZE {
        return Err(Problem::Xattrs(
            xattrs
                .iter()
                .map(|xattr| xattr.name.len() + xattr.value.len())
                .sum(),
        ));
    }
    Ok(encoded)
}

fn attribute(xattr: &Xattr, mode: &mut Option<(u16, u16)>) -> Result<Option<Attribute>, Problem> {
    let (prefix, name, value) = match &*xattr.name {
        b"system.posix_acl_access" => {
            let acl = Acl::parse(&xattr.value)?;
            *mode = Some(acl.mode()?);
            if acl.is_only_a_mode() {
                return Ok(None);
            }
            (ACL_ACCESS, Box::default(), acl.encode())
        }
        b"system.posix_acl_default" => (
            ACL_DEFAULT,
            Box::default(),
            Acl::parse(&xattr.value)?.encode(),
        ),
        name => {
            let Some((prefix, number)) =
                PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix))
            else {
                return Ok(None);
            };
            let name = &name[prefix.len()..];
            if name.is_empty() || name.len() > 255 || name.contains(&0) {
                return Err(Problem::Name);
            }
            (*number, name.into(), xattr.value.clone())
        }
    };
    Ok(Some(Attribute {
        prefix,
        name,
        value,
    }))
}

/// The inode's attribute area; empty when there is nothing in it.
pub(crate) fn render_inline(attributes: &[Attribute]) -> Vec<u8> {
    if attributes.is_empty() {
        return Vec::new();
    }
    let mut area = vec![0; INLINE_XATTR_SIZE];
    area.put32(0, MAGIC);
    render(&mut area, 4, 4, attributes, false);
    area
}

/// The attribute block that is going to lie at `place`.
pub(crate) fn render_block(attributes: &[Attribute], place: u32, seed: Checksum) -> Vec<u8> {
    let mut block = vec![0; BLOCK_SIZE];
    block.put32(0, MAGIC);
    block.put32(4, 1);
    block.put32(8, 1);
    let hash = attributes.iter().fold(0_u32, |hash, attribute| {
        hash.rotate_left(16) ^ attribute.hash()
    });
    block.put32(12, hash);
    render(&mut block, BLOCK_HEADER, 0, attributes, true);
    let checksum = seed.add(&u64::from(place).to_le_bytes()).add(&block);
    block.put32(16, checksum.0);
    block
}

/// Writes entries from `start` on and values from the end backwards; offsets count from `base`.
fn render(area: &mut [u8], start: usize, base: usize, attributes: &[Attribute], hashed: bool) {
    let (mut entry, mut end) = (start, area.len());
    for attribute in attributes {
        end -= attribute.value.len().next_multiple_of(4);
        // Area, name and value were measured by `encode`.
        area[entry] = u8::try_from(attribute.name.len()).unwrap_or_default();
        area[entry + 1] = attribute.prefix;
        let offset = if attribute.value.is_empty() {
            0
        } else {
            end - base
        };
        area.put16(entry + 2, u16::try_from(offset).unwrap_or_default());
        area.put32(
            entry + 8,
            u32::try_from(attribute.value.len()).unwrap_or_default(),
        );
        area.put32(entry + 12, if hashed { attribute.hash() } else { 0 });
        area.put(entry + 16, &attribute.name);
        area.put(end, &attribute.value);
        entry += attribute.entry_size();
    }
}

/// A POSIX access control list: tag, permissions, and whom they are for.
struct Acl(Vec<(u16, u16, u32)>);

impl Acl {
    const USER_OBJECT: u16 = 0x01;
    const USER: u16 = 0x02;
    const GROUP_OBJECT: u16 = 0x04;
    const GROUP: u16 = 0x08;
    const MASK: u16 = 0x10;
    const OTHER: u16 = 0x20;

    /// The exchange format: version 2, then entries of tag 2, permissions 2, ID 4.
    fn parse(value: &[u8]) -> Result<Acl, Problem> {
        let entries = value
            .strip_prefix(&2_u32.to_le_bytes())
            .ok_or(Problem::Acl)?;
        if entries.len() % 8 != 0 {
            return Err(Problem::Acl);
        }
        let entry = |bytes: &[u8]| {
            let tag = u16::from_le_bytes([bytes[0], bytes[1]]);
            let permissions = u16::from_le_bytes([bytes[2], bytes[3]]);
            let known = [0x01, 0x02, 0x04, 0x08, 0x10, 0x20].contains(&tag);
            let id = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
            if known && permissions <= 7 {
                Ok((tag, permissions, id))
            } else {
                Err(Problem::Acl)
            }
        };
        entries
            .chunks_exact(8)
            .map(entry)
            .collect::<Result<_, _>>()
            .map(Acl)
    }

    /// ext4's format: version 1, and an ID only where there is somebody to name.
    fn encode(&self) -> Box<[u8]> {
        let mut value = 1_u32.to_le_bytes().to_vec();
        for &(tag, permissions, id) in &self.0 {
            value.extend_from_slice(&tag.to_le_bytes());
            value.extend_from_slice(&permissions.to_le_bytes());
            if matches!(tag, Acl::USER | Acl::GROUP) {
                value.extend_from_slice(&id.to_le_bytes());
            }
        }
        value.into()
    }

    fn is_only_a_mode(&self) -> bool {
        self.0.len() == 3
    }

    /// The mode's permission bits follow the list, as `setxattr` makes them: the group's are the
    /// mask where there is one.
    fn mode(&self) -> Result<(u16, u16), Problem> {
        let find = |wanted| {
            self.0
                .iter()
                .find(|entry| entry.0 == wanted)
                .map(|entry| entry.1)
        };
        let owner = find(Acl::USER_OBJECT).ok_or(Problem::Acl)?;
        let group = find(Acl::MASK)
            .or_else(|| find(Acl::GROUP_OBJECT))
            .ok_or(Problem::Acl)?;
        let other = find(Acl::OTHER).ok_or(Problem::Acl)?;
        Ok((0o777, owner << 6 | group << 3 | other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xattr(name: &[u8], value: &[u8]) -> Xattr {
        Xattr {
            name: name.into(),
            value: value.into(),
        }
    }

    /// What `setfacl -m g:4:rx,m:rx` leaves on Debian's /var/log/journal.
    const ACL: &[u8] = b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x04\0\x05\0\xff\xff\xff\xff\
        \x08\0\x05\0\x04\0\0\0\x10\0\x05\0\xff\xff\xff\xff\x20\0\x05\0\xff\xff\xff\xff";

    #[test]
    fn access_control_lists_are_re_encoded() {
        let encoded = encode(&[xattr(b"system.posix_acl_access", ACL)]).unwrap();
        assert_eq!(encoded.mode, Some((0o777, 0o755)));
        assert_eq!(encoded.inline[0].prefix, ACL_ACCESS);
        assert_eq!(
            &*encoded.inline[0].value,
            b"\x01\0\0\0\x01\0\x07\0\x04\0\x05\0\x08\0\x05\0\x04\0\0\0\x10\0\x05\0\x20\0\x05\0"
        );
        for bad in [&ACL[..20], &ACL[..21], &b"\x01\0\0\0"[..], b""] {
            assert!(encode(&[xattr(b"system.posix_acl_access", bad)]).is_err());
        }
    }

    #[test]
    fn what_does_not_fit_the_inode_goes_to_the_block() {
        let capability = xattr(b"security.capability", &[1; 20]);
        let encoded = encode(std::slice::from_ref(&capability)).unwrap();
        assert_eq!((encoded.inline.len(), encoded.block.len()), (1, 0));
        let encoded = encode(&[capability, xattr(b"user.long", &[2; 3000])]).unwrap();
        assert_eq!((encoded.inline.len(), encoded.block.len()), (1, 1));
        assert!(matches!(
            encode(&[xattr(b"user.a", &[0; 4097])]),
            Err(Problem::Xattrs(4103))
        ));
        assert!(
            encode(&[xattr(b"com.apple.quarantine", b"x")])
                .unwrap()
                .inline
                .is_empty()
        );
    }
}
