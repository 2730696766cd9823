#!/bin/sh
# Makes the two Debian root file systems that the node image stands on, with the host's own mirror:
#   base.tar  a minimal system with systemd and what kubelet, containerd and a person at the console call
#   net.tar   only the network tools (and busybox), for the images of kube-proxy and kube-router
# usage: base.sh DIRECTORY
#
# Each says in usr/share/knest/packages what it is made of.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
directory=$1
suite=trixie

system=systemd,systemd-sysv,dbus,udev,login,runc,iptables,nftables,ipset,conntrack,ethtool,socat,iproute2,kmod
system=$system,e2fsprogs,util-linux,procps,iputils-ping,ca-certificates

"$here/mirror.sh" $suite >"$directory/sources"
set --
while read -r source; do set -- "$@" "$source"; done <"$directory/sources"
rm "$directory/sources"
mmdebstrap --quiet --skip=output/dev --variant=minbase --include="$system" --dpkgopt='path-exclude=/usr/share/man/*' \
    --customize-hook="$here/trim.sh" --format=tar "$suite" "$directory/base.tar" "$@"
echo "base.tar: $(stat -c %s "$directory/base.tar") bytes"
"$here/extract.sh" busybox-static,nftables,iptables,ipset,conntrack,iproute2,kmod "$directory/net.tar"
