#!/bin/bash
# Builds the node kernel from Debian's (or Ubuntu's) linux-source package and the fragment beside this file.
# usage: build.sh SOURCE-PACKAGE DIRECTORY
#
# DIRECTORY gets vmlinux (stripped, PVH), config (the whole one), version, and source, the package with its
# version. Fails with the list of the options that the fragment asks for and that this source does not set.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
package=$1 directory=$2

work=$directory/work
mkdir "$work"
cd "$work"
chmod 755 . # apt's download user has to reach it
apt-get download "$package" 2>&1 | grep -v '^W: Download is performed unsandboxed' || true
# shellcheck disable=SC2016 # the dollars are dpkg's
dpkg-deb --show --showformat '${Package} ${Version}\n' ./*.deb >"$directory/source"
dpkg-deb -x ./*.deb package
archive=$(find package/usr/src -type f -name 'linux-source-*.tar.*' | head -n 1)
[ -n "$archive" ] || { echo "$package holds no linux-source-*.tar"; exit 1; }
mkdir source
tar -xf "$archive" -C source --strip-components 1
rm -r package ./*.deb
cd source

KCONFIG_ALLCONFIG=$here/config make --silent allnoconfig
missing=$(sed '/^## Where this release has them/,$d' "$here/config" | grep '^CONFIG_' | grep -vxFf .config || true)
[ -z "$missing" ] || { printf 'asked for, but not set by %s:\n%s\n' "$package" "$missing"; exit 1; }
echo "$package: $(grep -c '=y$' .config) options set, all that were asked for"

# One line a minute is enough of a build's progress.
make --jobs "$(nproc)" vmlinux >build.log 2>&1 &
while kill -0 $! 2>/dev/null; do
    for _ in {1..60}; do kill -0 $! 2>/dev/null && sleep 1; done
    echo "compiled $(grep -c '^  CC' build.log || true) files"
done
wait $! || { tail -n 30 build.log; exit 1; }

strip --strip-all -o "$directory/vmlinux" vmlinux
cp .config "$directory/config"
make --silent kernelversion >"$directory/version"
cd "$directory"
rm -rf "$work"
echo "vmlinux: $(stat -c %s vmlinux) bytes, Linux $(<version)"
