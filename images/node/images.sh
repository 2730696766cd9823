#!/bin/sh
# Packs a node's container images, one OCI archive each, named as `kubeadm config images list` names them.
# usage: images.sh BINARIES NET-TAR DIRECTORY NAME…
#
# BINARIES is a directory of static binaries. Every image is one of them; those of kube-proxy and
# kube-router stand on NET-TAR (nft, iptables, ipset, ip, conntrack), which containerd then keeps once.
set -eu
oci=$(dirname "$0")/../oci.sh
binaries=$1 net=$2 directory=$3
shift 3

for name; do
    program=${name##*/}
    program=${program%%:*}
    root=$directory/$program
    path=usr/local/bin
    [ "$program" != coredns ] || path=''
    [ "$program" != pause ] || path=''
    mkdir -p "$root/$path"
    cp "$binaries/$program" "$root/$path/"
    [ "$program" != etcd ] || cp "$binaries/etcdctl" "$root/$path/"
    tar -C "$root" --owner=0 --group=0 --numeric-owner --sort=name --mtime=@0 -cf "$root.layer" .
    set -- "$root.layer"
    case $program in kube-proxy | kube-router) set -- "$net" "$@" ;; esac
    "$oci" -e "/$path${path:+/}$program" "$directory/$program.tar" "$name" "$@"
    rm -rf "$root" "$root.layer"
    echo "packed $name"
done
