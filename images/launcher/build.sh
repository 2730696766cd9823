#!/bin/sh
# Builds the launcher image, for a container beside a VM's: Debian's virtiofsd, and the scripts here.
# usage: build.sh SBOM DIRECTORY      gets image.tar; SBOM is the program that ../sbom builds
set -eu
here=$(cd "$(dirname "$0")" && pwd)
sbom=$1 directory=$2

"$here/../debian/extract.sh" virtiofsd,busybox-static "$directory/debian.tar"
root=$directory/root
mkdir -p "$root/usr/bin" "$root/usr/share/knest"
cp "$here/virtiofsd-share" "$here/virtiofsd-shares" "$root/usr/bin/"
for name in dirname id mkdir sed unshare; do ln -s busybox "$root/usr/bin/$name"; done
tar -xOf "$directory/debian.tar" ./usr/share/knest/packages >"$directory/packages"
version=$(sed -n 's/^virtiofsd \([^ ]*\) .*/\1/p' "$directory/packages")
"$sbom" -name "knest launcher" -version "$version" "list:$directory/packages" >"$root/usr/share/knest/sbom.spdx.json"
tar -C "$root" --owner=0 --group=0 --numeric-owner --sort=name --mtime=@0 -cf "$directory/layer.tar" .
"$here/../oci.sh" -e /usr/bin/virtiofsd-shares -l dev.knest.role=launcher \
    -l "org.opencontainers.image.title=knest launcher" \
    -l "org.opencontainers.image.description=virtiofsd, kept alive beside a VM that no knest drives" \
    -l "org.opencontainers.image.version=$version" \
    -l "org.opencontainers.image.licenses=Apache-2.0 AND BSD-3-Clause AND GPL-2.0-or-later" \
    "$directory/image.tar" knest.dev/launcher:latest "$directory/debian.tar" "$directory/layer.tar"
rm -r "$root" "$directory"/debian.tar "$directory"/layer.tar "$directory"/packages
