#!/bin/bash
# Builds the node image as a Docker archive.
# usage: build.sh NAME VERSION BASE PROGRAMS… DIRECTORY
#
# BASE holds base.tar and net.tar (../debian/base.sh), the PROGRAMS directories what ../kubernetes, ../sbom and
# store/ build. The result is DIRECTORY/image.tar, with DIRECTORY/sbom.spdx.json beside it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
name=$1 version=$2 base=$3
directories=("${@:4:$#-4}")
directory=${*: -1}

context=$directory/context
mkdir -p "$context"/{root,programs/usr/bin,programs/opt/cni/bin,build/images,containers}
trap 'rm -rf "$context"' EXIT

# find_program PROGRAM: in the first directory that has it.
find_program() {
    local found
    found=$(find "${directories[@]}" -maxdepth 1 -name "$1" | head -n 1)
    [ -n "$found" ] || { echo "no $1 in ${directories[*]}" >&2 && return 1; }
    echo "$found"
}
# place TARGET PROGRAM…: hard links where the cache's file system allows it.
place() {
    local target=$1 program found
    shift
    for program; do
        found=$(find_program "$program")
        cp -lL "$found" "$target/" 2>/dev/null || cp -L "$found" "$target/"
    done
}
place "$context/programs/usr/bin" kubeadm kubelet kubectl containerd containerd-shim-runc-v2 ctr crictl
place "$context/programs/opt/cni/bin" bridge host-local loopback portmap
place "$context/containers" kube-apiserver kube-controller-manager kube-scheduler kube-proxy etcd etcdctl \
    coredns kube-router
place "$context/build" store
chmod 755 "$context"/programs/usr/bin/*
gcc -Os -static -s -o "$context/containers/pause" "$here/pause.c"

# What it is all made of.
documents=$context/root/usr/share/knest
mkdir -p "$documents"
for part in base net; do tar -xOf "$base/$part.tar" ./usr/share/knest/packages >"$context/$part.packages"; done
"$(find_program sbom)" -name "knest node" -version "$version" "list:$context/base.packages" \
    "list:$context/net.packages" "$context"/{programs/usr/bin,programs/opt/cni/bin,containers}/* \
    >"$documents/sbom.spdx.json"
cp "$documents/sbom.spdx.json" "$directory/"

mapfile -t images < <("$context/programs/usr/bin/kubeadm" config images list --kubernetes-version "$version")
router=knest.dev/kube-router:$(<"$(find_program kube-router.version)")
"$here/images.sh" "$context/containers" "$base/net.tar" "$context/build/images" "${images[@]}" "$router"
pause=$(printf '%s\n' "${images[@]}" | grep /pause:)
echo "$pause" >"$context/build/pause-image"
cp "$here/setup.sh" "$context/build/"
rm -r "$context/containers" "$context"/*.packages

cp -a "$here/root/." "$context/root/"
sed -i "s,@PAUSE_IMAGE@,$pause," "$context/root/etc/containerd/config.toml"
sed -i "s,@KUBE_ROUTER_IMAGE@,$router," "$documents/manifests/cni.yaml"

revision=$(git -C "$here" describe --always --dirty --exclude '*' 2>/dev/null || echo unknown)
debian=knest.dev/debian:13
"$here/../engine.sh" "$directory" "$name" -r "$debian=$base/base.tar" -- --file "$here/Dockerfile" \
    --build-arg "BASE=$debian" --build-arg "KUBERNETES_VERSION=$version" --build-arg "REVISION=$revision" "$context"
