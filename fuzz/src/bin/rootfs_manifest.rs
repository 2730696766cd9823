//! Documents that say what an image is: indexes, manifests, configs, a layout's index, an archive's
//! list. Each ends in an image that hangs together, or in an error. The first byte says which one the
//! rest is; `@MANIFEST@`, `@CONFIG@` and `@LAYER@` in it stand for digests that nobody could guess.
#![no_main]

use std::path::Path;

use knest_rootfs::source::{self, Memory};
use knest_rootfs::{BlobSource, Compression, Contents, Image, Platform, Wishes};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static DIRECTORY: tempfile::TempDir = tempfile::tempdir_in("/dev/shm").expect("a directory");
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fuzz_target!(|input: &[u8]| {
    let Some((choice, document)) = input.split_first() else {
        return;
    };
    let platform = Platform::host();
    let layer = (vec![0; 1024], Compression::None);
    let mut memory = Memory::from_layers(&platform, [layer]).expect("packed");
    let good = Image::resolve(&memory, &platform).expect("an image");
    let document = filled(document, &good);
    match choice % 5 {
        0 => memory.set_root(document, MANIFEST),
        1 => memory.set_root(document, INDEX),
        2 => {
            let config = memory.add(document, "application/vnd.oci.image.config.v1+json");
            let manifest = serde_json::json!({
                "schemaVersion": 2, "config": config, "layers": [good.layers[0].blob],
            });
            memory.set_root(manifest.to_string().into_bytes(), MANIFEST);
        }
        3 => {
            return DIRECTORY.with(|directory| {
                write(
                    &directory.path().join("oci-layout"),
                    br#"{"imageLayoutVersion":"1.0.0"}"#,
                );
                write(&directory.path().join("index.json"), &document);
                opened("oci", directory.path());
            });
        }
        _ => {
            return DIRECTORY.with(|directory| {
                let path = directory.path().join("archive.tar");
                let mut archive = tar::Builder::new(Vec::new());
                for (name, bytes) in [("manifest.json", &*document), ("l.tar", &[0; 1024])] {
                    let mut header = tar::Header::new_gnu();
                    header.set_size(bytes.len() as u64);
                    archive
                        .append_data(&mut header, name, bytes)
                        .expect("appended");
                }
                write(&path, &archive.into_inner().expect("finished"));
                opened("docker-archive", &path);
            });
        }
    }
    resolved(&memory);
});

fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).expect("written");
}

fn opened(kind: &str, path: &Path) {
    for name in ["", ":a"] {
        if let Ok(source) = source::open(&format!("{kind}:{}{name}", path.display())) {
            resolved(&*source);
        }
    }
}

fn resolved(source: &dyn BlobSource) {
    if let Ok(image) = Image::resolve(source, &Platform::host()) {
        assert_eq!(image.blobs().count(), image.layers.len() + 2);
        drop(Contents::read(source, &image, Wishes::default()));
    }
}

fn filled(document: &[u8], good: &Image) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(document) else {
        return document.to_vec();
    };
    text.replace("@MANIFEST@", &good.digest().to_string())
        .replace("@CONFIG@", &good.config_descriptor.digest.to_string())
        .replace("@LAYER@", &good.layers[0].blob.digest.to_string())
        .into_bytes()
}
