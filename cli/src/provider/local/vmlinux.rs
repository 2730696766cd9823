//! Whether bytes are a kernel that every VMM boots directly: an ELF file for this kind of machine with
//! a PVH entry, which is Xen's note 18 (`PHYS32_ENTRY`). Pure; any bytes are legal input.

/// What keeps a file from being such a kernel.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error("a bzImage, which is compressed")]
    Compressed,
    #[error("no ELF file")]
    NoElf,
    #[error("an ELF file for another machine ({0})")]
    Machine(String),
    #[error("an ELF file without a PVH entry")]
    NoPvh,
}

impl Unfit {
    /// What to do about it.
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            Self::Compressed => "take the uncompressed vmlinux of the same build",
            Self::NoElf => "the image wants the uncompressed vmlinux of a kernel build",
            Self::Machine(_) => "build it for x86-64",
            Self::NoPvh => "build it with CONFIG_PVH=y",
        }
    }
}

const X86_64: usize = 62;

/// Looks at a whole file.
pub(super) fn check(file: &[u8]) -> Result<(), Unfit> {
    if !file.starts_with(b"\x7fELF") {
        // Linux's boot protocol has its magic here.
        let compressed = file.get(0x202..0x206) == Some(b"HdrS");
        return Err(match compressed {
            true => Unfit::Compressed,
            false => Unfit::NoElf,
        });
    }
    let machine = number(file, 18, 2).unwrap_or_default();
    // 64 bits, little-endian.
    if file.get(4..6) != Some(&[2, 1]) || machine != X86_64 {
        return Err(Unfit::Machine(name(file, machine)));
    }
    let count = number(file, 56, 2).unwrap_or(0);
    match (0..count).any(|index| header(file, index) == Some(true)) {
        true => Ok(()),
        false => Err(Unfit::NoPvh),
    }
}

/// The machine's name as people write it.
fn name(elf: &[u8], machine: usize) -> String {
    let big_endian = elf.get(5) == Some(&2);
    match machine {
        _ if big_endian => "big-endian".into(),
        3 => "i386".into(),
        X86_64 => "x86-64 in 32 bits".into(),
        183 => "aarch64".into(),
        243 => "riscv".into(),
        other => format!("ELF machine {other}"),
    }
}

fn number(bytes: &[u8], at: usize, length: usize) -> Option<usize> {
    let field = bytes.get(at..at.checked_add(length)?)?;
    let value = field
        .iter()
        .rev()
        .fold(0_u64, |n, b| n << 8 | u64::from(*b));
    usize::try_from(value).ok()
}

/// Whether this program header is of notes with the one that is wanted.
fn header(elf: &[u8], index: usize) -> Option<bool> {
    const NOTE: usize = 4;
    let at = number(elf, 32, 8)?.checked_add(index.checked_mul(number(elf, 54, 2)?)?)?;
    if number(elf, at, 4)? != NOTE {
        return Some(false);
    }
    let start = number(elf, at.checked_add(8)?, 8)?;
    let length = number(elf, at.checked_add(32)?, 8)?;
    notes(elf.get(start..start.checked_add(length)?)?)
}

fn notes(mut notes: &[u8]) -> Option<bool> {
    while !notes.is_empty() {
        let (name, text) = (number(notes, 0, 4)?, number(notes, 4, 4)?);
        let owner = notes.get(12..12_usize.checked_add(name)?)?;
        if owner == b"Xen\0" && number(notes, 8, 4)? == 18 {
            return Some(true);
        }
        let length = name.checked_next_multiple_of(4)?.checked_add(text)?;
        let length = length.checked_next_multiple_of(4)?.checked_add(12)?;
        notes = notes.get(length..)?;
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF64 header, one program header of type 4, and one note of Xen's.
    fn elf(kind: u8) -> Vec<u8> {
        let mut elf = vec![0; 120];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[18] = 62;
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = 1;
        elf[64] = 4;
        elf[72] = 120;
        elf[96] = 40;
        // Another owner's note first: 4 + 1 bytes, each rounded up.
        elf.extend([
            4, 0, 0, 0, 1, 0, 0, 0, 18, 0, 0, 0, b'G', b'N', b'U', 0, 9, 0, 0, 0,
        ]);
        elf.extend([
            4, 0, 0, 0, 4, 0, 0, 0, kind, 0, 0, 0, b'X', b'e', b'n', 0, 1, 2, 3, 4,
        ]);
        elf
    }

    #[test]
    fn pvh_is_a_note() {
        assert_eq!(check(&elf(18)), Ok(()));
        assert_eq!(check(&elf(17)), Err(Unfit::NoPvh));
        let whole = elf(18);
        for length in 0..whole.len() {
            assert!(check(&whole[..length]).is_err());
        }
    }

    #[test]
    fn what_else_is_named() {
        let mut bz_image = vec![0; 0x400];
        bz_image[..2].copy_from_slice(b"MZ");
        bz_image[0x202..0x206].copy_from_slice(b"HdrS");
        assert_eq!(check(&bz_image), Err(Unfit::Compressed));
        assert_eq!(check(b"MZ"), Err(Unfit::NoElf));
        let mut other = elf(18);
        other[18] = 183;
        assert_eq!(check(&other), Err(Unfit::Machine("aarch64".into())));
        let mut narrow = elf(18);
        narrow[4] = 1;
        narrow[18] = 3;
        assert_eq!(check(&narrow), Err(Unfit::Machine("i386".into())));
    }

    #[test]
    fn numbers_at_the_end_of_the_address_space_are_refused() {
        let mut elf = elf(18);
        elf[32..40].fill(0xff);
        assert_eq!(check(&elf), Err(Unfit::NoPvh));
    }
}
