//! Layers as anybody may have written them, packed each way. Reading one ends in an image or an
//! error, an image becomes a disk or an error, and no error leaves a file. Checksums are put right
//! first, or nearly nothing would get past them.
#![no_main]

use knest_rootfs::source::Memory;
use knest_rootfs::{BuildOptions, Compression, Contents, Image, Platform, Wishes, build};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static DIRECTORY: tempfile::TempDir = tempfile::tempdir_in("/dev/shm").expect("a directory");
}

fuzz_target!(|input: &[u8]| {
    let Some((choice, tar)) = input.split_first() else {
        return;
    };
    // The first byte: one layer or two, and how they are packed.
    let packing = [Compression::None, Compression::Gzip, Compression::Zstd];
    let packing = packing[usize::from(choice >> 1) % 3];
    let layers = match choice & 1 {
        0 => vec![tar],
        _ => {
            let half = tar.len() / 1024 * 512;
            vec![&tar[..half], &tar[half..]]
        }
    };
    let layers = layers.into_iter().map(|tar| (mended(tar), packing));
    let platform = Platform::host();
    let source = Memory::from_layers(&platform, layers).expect("packed");
    let image = Image::resolve(&source, &platform).expect("an image");
    let contents = Contents::read(&source, &image, Wishes::default());
    DIRECTORY.with(|directory| {
        let disk = directory.path().join("disk.raw");
        let built = build(&source, &image, &disk, &BuildOptions::new(8 << 20));
        assert!(contents.is_ok() || built.is_err(), "a disk of no image");
        drop(std::fs::remove_file(&disk));
        let mut left = std::fs::read_dir(directory.path()).expect("listed");
        assert!(left.next().is_none(), "a file is left");
    });
});

/// The same bytes, every block that looks like a header with the right checksum.
fn mended(tar: &[u8]) -> Vec<u8> {
    let mut tar = tar.to_vec();
    for (number, block) in tar.chunks_exact_mut(512).enumerate() {
        if number == 0 || &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
            block[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
            block[154] = 0;
        }
    }
    tar
}
