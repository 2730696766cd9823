#!/bin/sh
# Packs a kernel as an image that serves two readers: knest takes /vmlinux out of it, and as an init
# container of Virtink it copies /vmlinux to the path that is its argument.
# usage: image.sh KERNEL SBOM BASE-LAYER DIRECTORY
#
# KERNEL is a directory that build.sh made, BASE-LAYER the layer of ../kernel-base. DIRECTORY gets image.tar.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
kernel=$1 sbom=$2 base=$3 directory=$4
version=$(cat "$kernel/version")
read -r package release <"$kernel/source"

root=$directory/root
mkdir -p "$root/usr/share/knest"
ln "$kernel/vmlinux" "$root/vmlinux" 2>/dev/null || cp "$kernel/vmlinux" "$root/vmlinux"
cp "$kernel/config" "$root/usr/share/knest/kernel-config"
"$sbom" -name "knest kernel" -version "$version" "deb:$package@$release" >"$root/usr/share/knest/sbom.spdx.json"
tar -C "$root" --owner=0 --group=0 --numeric-owner --sort=name --mtime=@0 -cf "$directory/layer.tar" .
"$here/../oci.sh" -e /bin/copy -e /vmlinux -l dev.knest.role=kernel \
    -l "org.opencontainers.image.title=knest kernel" \
    -l "org.opencontainers.image.description=Linux for knest's nodes, entered by PVH, from Debian's $package" \
    -l "org.opencontainers.image.version=$version" -l org.opencontainers.image.licenses=GPL-2.0-only \
    "$directory/image.tar" "knest.dev/kernel:$version" "$base/layer.tar" "$directory/layer.tar"
rm -rf "$root" "$directory/layer.tar"
