#!/bin/bash
# Builds the node image as a Docker archive (which, unlike an OCI one, all engines leave uncompressed).
# usage: build.sh NAME VERSION BASE PROGRAMS… DIRECTORY
#
# BASE holds base.tar and net.tar (debian/base.sh), the PROGRAMS directories what ../kubernetes and store/
# build. The result is DIRECTORY/image.tar. An engine counts when it answers; without one Debian's buildah
# builds in a chroot, which needs no daemon and no right to mount.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
name=$1 version=$2 base=$3
directories=("${@:4:$#-4}")
directory=${*: -1}

context=$directory/context
mkdir -p "$context"/{root,programs/usr/bin,programs/opt/cni/bin,build/images,containers}
trap 'rm -rf "$context" "$directory/storage" "$directory/base.oci"' EXIT

# place TARGET PROGRAM…: hard links where the cache's file system allows it.
place() {
    local target=$1 program found
    shift
    for program; do
        found=$(find "${directories[@]}" -maxdepth 1 -name "$program" | head -n 1)
        [ -n "$found" ] || { echo "no $program in ${directories[*]}" && return 1; }
        cp -lL "$found" "$target/" 2>/dev/null || cp -L "$found" "$target/"
    done
}
place "$context/programs/usr/bin" kubeadm kubelet kubectl containerd containerd-shim-runc-v2 ctr crictl
place "$context/programs/opt/cni/bin" bridge host-local loopback portmap
place "$context/containers" kube-apiserver kube-controller-manager kube-scheduler kube-proxy etcd etcdctl \
    coredns kube-router kube-router.version
place "$context/build" store
chmod 755 "$context"/programs/usr/bin/*
gcc -Os -static -s -o "$context/containers/pause" "$here/pause.c"

mapfile -t images < <("$context/programs/usr/bin/kubeadm" config images list --kubernetes-version "$version")
router=knest.dev/kube-router:$(<"$context/containers/kube-router.version")
"$here/images.sh" "$context/containers" "$base/net.tar" "$context/build/images" "${images[@]}" "$router"
pause=$(printf '%s\n' "${images[@]}" | grep /pause:)
echo "$pause" >"$context/build/pause-image"
cp "$here/setup.sh" "$context/build/"
rm -r "$context/containers"

cp -a "$here/root/." "$context/root/"
sed -i "s,@PAUSE_IMAGE@,$pause," "$context/root/etc/containerd/config.toml"
sed -i "s,@KUBE_ROUTER_IMAGE@,$router," "$context/root/usr/share/knest/manifests/cni.yaml"

debian=knest.dev/debian:13
arguments=(--file "$here/Dockerfile" --tag "$name" --build-arg "BASE=$debian" --build-arg "KUBERNETES_VERSION=$version")
for engine in docker podman; do
    timeout 10 "$engine" info >/dev/null 2>&1 || continue
    echo "with $engine, which answers"
    "$engine" import "$base/base.tar" $debian
    DOCKER_BUILDKIT=1 "$engine" build "${arguments[@]}" "$context"
    "$engine" save --output "$directory/image.tar" "$name"
    exit
done

command -v buildah >/dev/null || { echo "neither docker nor podman answers, and there is no buildah" && exit 1; }
echo "with buildah in a chroot, as neither docker nor podman answers"
"$here/../oci.sh" "$directory/base.oci" $debian "$base/base.tar"
for driver in overlay vfs; do
    buildah=(buildah --root "$directory/storage" --runroot "$directory/storage/run" --storage-driver "$driver")
    "${buildah[@]}" pull --quiet "oci-archive:$directory/base.oci" >/dev/null && break
    rm -rf "$directory/storage"
done
"${buildah[@]}" bud --isolation chroot --pull-never "${arguments[@]}" "$context"
"${buildah[@]}" push --quiet "$name" "docker-archive:$directory/image.tar:$name"
"${buildah[@]}" rmi --all --force >/dev/null
