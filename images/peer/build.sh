#!/bin/bash
# Builds what `make bench` holds the node image and the kernel against: a Debian as clouds boot it, with its
# cloud kernel, an initramfs and cloud-init, and with the node's own containerd and kubelet. Nobody runs it.
# usage: build.sh PROGRAMS… DIRECTORY      gets root.tar, vmlinuz and initrd.img
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
programs=("${@:1:$#-1}") directory=${*: -1}
suite=trixie

packages=systemd,systemd-sysv,dbus,udev,login,runc,iptables,nftables,ipset,conntrack,ethtool,socat,iproute2,kmod
packages=$packages,e2fsprogs,util-linux,procps,iputils-ping,ca-certificates
packages=$packages,linux-image-cloud-amd64,initramfs-tools,cloud-init,netplan.io,systemd-resolved

root=$directory/root
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/usr/bin" "$root/usr/lib"
for program in "${programs[@]}"; do
    find "$program" -maxdepth 1 -type f -perm -100 -exec cp {} "$root/usr/bin/" \;
done
cp -r "$here/../node/root/usr/lib/systemd" "$root/usr/lib/"
rm "$root"/usr/lib/systemd/system/knest-*
tar -C "$root" --owner=0 --group=0 -cf "$directory/programs.tar" .

mapfile -t sources < <("$here/../debian/mirror.sh" $suite)
# shellcheck disable=SC2016 # the dollar is mmdebstrap's
mmdebstrap --quiet --skip=output/dev --variant=minbase --include="$packages" --format=tar \
    --customize-hook="tar-in $directory/programs.tar /" \
    --customize-hook='chroot "$1" systemctl enable containerd.service kubelet.service' \
    --customize-hook='chroot "$1" systemctl set-default multi-user.target' \
    $suite "$directory/root.tar" "${sources[@]}"
for file in vmlinuz initrd.img; do
    tar -xOf "$directory/root.tar" --wildcards "./boot/$file-*" >"$directory/$file"
    [ -s "$directory/$file" ] || { echo "no $file in the root"; exit 1; }
done
rm "$directory/programs.tar"
echo "root.tar: $(stat -c %s "$directory/root.tar") bytes, initrd.img: $(stat -c %s "$directory/initrd.img")"
