#!/bin/bash
# Builds the base of images that a host cluster's Virtink makes root disks of: one static program, which
# writes /rootfs to the path and of the size that are its arguments. A label tells knest that what a machine
# boots is below it.
# usage: build.sh DIRECTORY      gets image.tar and the program
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
directory=$1
target=x86_64-unknown-linux-gnu program=knest-container-rootfs

cd "$here/../.."
# With a target of its own, build scripts and macros are not linked statically.
RUSTFLAGS='-C target-feature=+crt-static' CARGO_TARGET_DIR=$directory/target \
    cargo build --locked --release --quiet --target $target --package knest-rootfs --bin $program
mkdir -p "$directory/root"/{bin,rootfs}
strip -o "$directory/root/bin/$program" "$directory/target/$target/release/$program"
cp "$directory/root/bin/$program" "$directory/"
tar -C "$directory/root" --owner=0 --group=0 --numeric-owner --sort=name --mtime=@0 -cf "$directory/layer.tar" .
"$here/../oci.sh" -e /bin/$program -l "org.opencontainers.image.title=knest container-rootfs base" \
    -l "org.opencontainers.image.description=Base of root images for Virtink: COPY a root file system to /rootfs" \
    -l org.opencontainers.image.licenses=Apache-2.0 -l dev.knest.root=/rootfs \
    "$directory/image.tar" knest.dev/container-rootfs-base:latest "$directory/layer.tar"
rm -r "$directory"/{root,target,layer.tar}
