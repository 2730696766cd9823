#!/bin/sh
# Makes the two Debian root file systems that the node image stands on, with the host's own mirror:
#   base.tar  a minimal system with systemd and what kubelet, containerd and a person at the console call
#   net.tar   only the network tools (and busybox), for the images of kube-proxy and kube-router
# usage: base.sh DIRECTORY
set -eu
here=$(cd "$(dirname "$0")" && pwd)
directory=$1
suite=trixie

system=systemd,systemd-sysv,dbus,udev,login,runc,iptables,nftables,ipset,conntrack,ethtool,socat,iproute2,kmod
system=$system,e2fsprogs,util-linux,procps,iputils-ping,ca-certificates
tools=busybox-static,nftables,iptables,ipset,conntrack,iproute2,kmod

# The archive that this host's apt uses, when it is Debian's; else mmdebstrap's default.
# shellcheck disable=SC2016 # the dollars are apt's
mirror() { apt-get indextargets --format '$(LABEL) $(REPO_URI)' 2>/dev/null | sed -n "s/^$1 //p" | head -n 1; }
debian=$(mirror Debian)
security=$(mirror Debian-Security)
set --
[ -z "$debian" ] || set -- "$@" "deb $debian $suite main" "deb $debian $suite-updates main"
[ -z "$debian" ] || [ -z "$security" ] || set -- "$@" "deb $security $suite-security main"

mmdebstrap --quiet --skip=output/dev --variant=minbase --include="$system" --dpkgopt='path-exclude=/usr/share/man/*' \
    --customize-hook="$here/trim.sh" --format=tar "$suite" "$directory/base.tar" "$@"
echo "base.tar: $(stat -c %s "$directory/base.tar") bytes"
# This variant only extracts: no maintainer script runs, and so no customize hook.
mmdebstrap --quiet --skip=output/dev --variant=extract --include="$tools" \
    --extract-hook="$here/tools.sh" --format=tar "$suite" "$directory/net.tar" "$@"
echo "net.tar: $(stat -c %s "$directory/net.tar") bytes"
