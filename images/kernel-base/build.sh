#!/bin/sh
# Builds the base of kernel images: one program, which copies /vmlinux to where Virtink wants it.
# usage: build.sh DIRECTORY      gets layer.tar, the only layer, and image.tar
set -eu
here=$(cd "$(dirname "$0")" && pwd)
directory=$1
mkdir -p "$directory/root/bin"
gcc -Os -static -s -Wall -Werror -o "$directory/root/bin/copy" "$here/copy.c"
tar -C "$directory/root" --owner=0 --group=0 --numeric-owner --sort=name --mtime=@0 -cf "$directory/layer.tar" .
"$here/../oci.sh" -e /bin/copy -e /vmlinux -l "org.opencontainers.image.title=knest kernel base" \
    -l "org.opencontainers.image.description=Base of kernel images for Virtink: COPY a PVH kernel to /vmlinux" \
    -l org.opencontainers.image.licenses=Apache-2.0 "$directory/image.tar" knest.dev/kernel-base:latest "$directory/layer.tar"
rm -r "$directory/root"
