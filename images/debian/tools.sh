#!/bin/sh
# Makes a container's root file system of packages that were only extracted: notes which they are, links what
# their maintainer scripts would have linked, and takes out what such tools never read.
# usage: tools.sh ROOT
set -eu
cd "$1"
mkdir -p usr/share/knest
for package in var/cache/apt/archives/*.deb; do
    # shellcheck disable=SC2016 # the dollars are dpkg's
    dpkg-deb --show --showformat '${Package} ${Version} ${Architecture}\n' "$package"
done >usr/share/knest/packages
for name in bin sbin lib lib64; do
    [ -e $name ] || ln -s usr/$name $name
done
for name in sh nc grep cp mv rm sleep cat ls ps; do
    ln -sf busybox usr/bin/$name
done
for name in iptables ip6tables; do
    for part in '' -save -restore; do
        [ ! -e usr/sbin/xtables-nft-multi ] || ln -sf xtables-nft-multi usr/sbin/$name$part
    done
done
mkdir -p root run tmp
echo 'root:x:0:0:root:/root:/bin/sh' >etc/passwd
find usr/share/doc -type f ! -name copyright -delete
rm -rf usr/share/man usr/share/locale usr/share/perl* usr/share/zsh usr/share/bash-completion \
    usr/lib/x86_64-linux-gnu/perl* usr/lib/x86_64-linux-gnu/gconv usr/bin/perl* usr/lib/dpkg
