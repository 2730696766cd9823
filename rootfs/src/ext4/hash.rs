//! The hash by which large directories are ordered: half of MD4, over signed bytes.
//! The kernel's `fs/ext4/hash.c`.

/// Marks the end of a directory, so no name may have it.
const END: u32 = 0xffff_fffe;

/// A name's major hash; its lowest bit is always clear.
pub(crate) fn hash(name: &[u8], seed: &[u32; 4]) -> u32 {
    let mut state = *seed;
    let mut rest = name;
    loop {
        half_md4(&mut state, &words(rest));
        if rest.len() <= 32 {
            break;
        }
        rest = &rest[32..];
    }
    match state[1] & !1 {
        END => END - 2,
        hash => hash,
    }
}

/// The next 32 bytes as words, filled up with the length of what is left.
fn words(rest: &[u8]) -> [u32; 8] {
    let length = u32::from(u8::try_from(rest.len()).unwrap_or(u8::MAX));
    let pad = length * 0x0101_0101;
    let mut words = [pad; 8];
    for (word, bytes) in words.iter_mut().zip(rest.chunks(4)) {
        for &byte in bytes {
            let extended = i32::from(byte.cast_signed()).cast_unsigned();
            *word = extended.wrapping_add(*word << 8);
        }
    }
    words
}

fn half_md4(state: &mut [u32; 4], input: &[u32; 8]) {
    const ROUNDS: [(u32, [usize; 8], [u32; 4]); 3] = [
        (0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]),
        (0x5a82_7999, [1, 3, 5, 7, 0, 2, 4, 6], [3, 5, 9, 13]),
        (0x6ed9_eba1, [3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15]),
    ];
    let mut turning = *state;
    for (round, (constant, order, shifts)) in ROUNDS.into_iter().enumerate() {
        for (step, index) in order.into_iter().enumerate() {
            let [a, b, c, d] = turning;
            let mixed = match round {
                0 => d ^ (b & (c ^ d)),
                1 => (b & c).wrapping_add((b ^ c) & d),
                _ => b ^ c ^ d,
            };
            let sum = a
                .wrapping_add(mixed)
                .wrapping_add(input[index])
                .wrapping_add(constant);
            turning = [d, sum.rotate_left(shifts[step % 4]), b, c];
        }
    }
    for (word, turned) in state.iter_mut().zip(turning) {
        *word = word.wrapping_add(turned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `debugfs -R 'dx_hash -h half_md4 -s 00010203-0405-0607-0809-0a0b0c0d0e0f NAME'`.
    #[test]
    fn the_hash_is_e2fsprogs_hash() {
        let seed = [0x0302_0100, 0x0706_0504, 0x0b0a_0908, 0x0f0e_0d0c];
        for (name, expected) in KNOWN {
            assert_eq!(
                hash(name, &seed),
                *expected,
                "{}",
                String::from_utf8_lossy(name)
            );
        }
    }

    const KNOWN: &[(&[u8], u32)] = &[
        (b"a", 0x0a2f_a3a0),
        (b"bin", 0xe7a9_c1c0),
        (b"file-000001-with-a-longish-name.txt", 0xd463_c80c),
        (&[b'n'; 255], 0x9a6f_d190),
        ("\u{fc}".as_bytes(), 0xc0a8_0514),
        (&[b'x'; 32], 0x69bc_108c),
        (&[b'y'; 33], 0x0385_60be),
    ];
}
