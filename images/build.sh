#!/bin/bash
# Builds the images and hands them to knest's image store; what did not change comes from the cache.
# usage: build.sh [all|kernel|node|launcher|virtink|container-rootfs-base|hollow|peer]
#
#   all                         the kernel, the node image and the launcher
#   virtink                     the same, the bases for Virtink, and the node image on its own
#   container-rootfs-base       only that base
#   hollow                      only the kubelet of the tests' hollow nodes
#   peer                        only what `make bench` compares with; prints its directory
#
#   KNEST                       the knest to load them with; empty: build only, and print the files
#   KNEST_IMAGE_REPOSITORY      how their names begin: knest.dev unless set
#   KNEST_PUSH                  a registry's repository that gets them instead: registry.example/knest; it gets
#                               all that a host cluster with Virtink pulls
#   KNEST_PUSH_FLAGS            for skopeo, e.g. --dest-tls-verify=false
#   KNEST_KUBERNETES_VERSION    v1.37.2 unless set
#   KNEST_KUBERNETES_BINARIES   a directory with Kubernetes's binaries of that version
#   KNEST_KUBERNETES_URL        a mirror of the release site
#   KNEST_CACHE_DIR             where the outputs are kept, below build/
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here" # hashes are over relative names
# shellcheck source=lib.sh
. ./lib.sh

repository=${KNEST_IMAGE_REPOSITORY:-knest.dev}
version=${KNEST_KUBERNETES_VERSION:-v1.37.2}
[[ $version =~ ^v1\.[0-9]+\.[0-9]+$ ]] || die "$version is not a Kubernetes version like v1.37.2"
minor=${version%.*}
case $minor in
v1.35 | v1.36 | v1.37) ;;
*) die "Kubernetes $version is not supported: v1.35, v1.36 and v1.37 are (docs/versions.md)" ;;
esac

# hand NAME:TAG FILE: to the registry if one is named, else to the store.
hand() {
    local transport=docker-archive
    if [ -n "${KNEST_PUSH-}" ]; then
        ! tar -tf "$2" oci-layout >/dev/null 2>&1 || transport=oci-archive
        say "pushing $KNEST_PUSH/$1"
        # shellcheck disable=SC2086 # flags are words
        skopeo copy --quiet ${KNEST_PUSH_FLAGS-} "$transport:$2" "docker://$KNEST_PUSH/$1"
    elif [ -n "${KNEST-knest}" ]; then
        "${KNEST:-knest}" image load --name "$repository/$1" "$2"
    else
        echo "$repository/$1 $2"
    fi
}

kernel() {
    need apt-get bc bison flex gcc go make xz
    local package source sbom base vmlinux options
    package=$(apt-cache search --names-only '^linux-source-[0-9.]+$' | cut -d' ' -f1 | sort -V | tail -n 1)
    [ -n "$package" ] || die "apt knows no linux-source package (apt-get update?)"
    source=$(apt-cache show --no-all-versions "$package" | sed -n 's/^Version: //p' | head -n 1)
    options=$(grep -e '^CONFIG_' -e '^## Where' kernel/config) # comments may change
    cached kernel "$(hash_of "$package $source" "$(gcc --version | head -n 1)" "$options" -- kernel/build.sh)" \
        kernel/build.sh "$package"
    vmlinux=$cached
    sbom
    sbom=$cached
    cached kernel-base "$(hash_of "$(gcc --version | head -n 1)" -- kernel-base oci.sh)" kernel-base/build.sh
    base=$cached
    kernel_base=$cached/image.tar
    cached kernel-image "$(hash_of "$vmlinux" "$sbom" "$base" -- kernel/image.sh oci.sh)" \
        kernel/image.sh "$vmlinux" "$sbom/sbom" "$base"
    hand "kernel:$(<"$vmlinux/version")" "$cached/image.tar"
    hand kernel:latest "$cached/image.tar" # what `knest create` takes
}

# sbom: the program that says what an image is made of.
sbom() { cached sbom "$(hash_of "$(go env GOVERSION)" -- sbom)" sbom/build.sh; }

# module NAME VERSION [KIND]: a Go module's programs, added to $programs. What differs between Kubernetes's
# releases is of a kind for each minor version, so that they don't push each other out of the cache.
module() {
    cached "${3-$1}" "$(module_hash "$1" "$2")" kubernetes/module.sh "$1" "$2"
    programs+=("$cached")
}
module_hash() {
    local sources=kubernetes/$1
    [ ! -d "kubernetes/older/$1-$2" ] || sources=kubernetes/older/$1-$2
    hash_of "$2" "$(go env GOVERSION)" -- "$sources" kubernetes/module.sh
}

# Kubernetes itself: a directory that was given, else the release, else Go modules.
kubernetes() {
    if [ -n "${KNEST_KUBERNETES_BINARIES-}" ]; then
        say "kubernetes $version: from $KNEST_KUBERNETES_BINARIES"
        programs+=("$(realpath "$KNEST_KUBERNETES_BINARIES")")
    elif [ ! -d "$builds/kubernetes-$minor-$(module_hash kubernetes "$version")" ] && kubernetes/fetch.sh "$version"; then
        say "kubernetes $version: the release's binaries"
        cached "release-$minor" "$(hash_of "$version" "${KNEST_KUBERNETES_URL-}" -- kubernetes/fetch.sh)" \
            kubernetes/fetch.sh "$version"
        programs+=("$cached")
    else
        say "kubernetes $version: from Go modules, as the release site does not answer or did not before"
        module kubernetes "$version" "kubernetes-$minor"
    fi
}

node() {
    need curl gcc go mmdebstrap
    local programs=() base kubeadm list given=()
    kubernetes
    [ -z "${KNEST_KUBERNETES_BINARIES-}" ] || given=("$KNEST_KUBERNETES_BINARIES")
    kubeadm=${programs[0]}/kubeadm
    [ "$("$kubeadm" version -o short)" = "$version" ] || die "$kubeadm is not of $version"
    list=$("$kubeadm" config images list --kubernetes-version "$version")
    module etcd "v$(sed -n 's,.*/etcd:\([0-9.]*\).*,\1,p' <<<"$list")" "etcd-$minor"
    module coredns "$(sed -n 's,.*/coredns:,,p' <<<"$list")" "coredns-$minor"
    for name in containerd cni kube-router cri-tools; do module $name committed; done
    cached store "$(hash_of "$(go env GOVERSION)" -- node/store)" node/store/build.sh
    programs+=("$cached")
    sbom
    programs+=("$cached")
    cached debian "$(hash_of -- debian)" debian/base.sh
    base=$cached
    cached "node-$minor" "$(hash_of "$version" "$base" "${programs[@]}" -- node engine.sh oci.sh "${given[@]}")" \
        node/build.sh "knest.dev/node:$version" "$version" "$base" "${programs[@]}"
    node_image=$cached/image.tar
    # A registry gets it in Virtink's form alone.
    [ -n "${KNEST_PUSH-}" ] || hand "node:$version" "$node_image"
}

# virtink: what a host cluster needs; the kernel image serves it as it is.
virtink() {
    kernel
    node
    launcher
    container-rootfs-base
    hand kernel-base:latest "$kernel_base"
    cached "node-rootfs-$minor" "$(hash_of "$rootfs_base" "$node_image" -- node/Dockerfile.container-rootfs engine.sh)" \
        rootfs_form "$rootfs_base"
    hand "node:$version-container-rootfs" "$cached/image.tar"
    # It boots on one machine too, so a registry has it by the plain name as well.
    [ -z "${KNEST_PUSH-}" ] || hand "node:$version" "$cached/image.tar"
}
container-rootfs-base() {
    need cargo gcc
    local name=container-rootfs-base
    cached $name "$(hash_of "$(rustc --version)" -- $name oci.sh ../rootfs/src ../rootfs/entrypoint \
        ../rootfs/Cargo.toml ../Cargo.lock)" $name/build.sh
    rootfs_base=$cached/image.tar
    hand $name:latest "$rootfs_base"
}
# rootfs_form BASE DIRECTORY
rootfs_form() {
    ./engine.sh "$2" "knest.dev/node:$version-container-rootfs" -a "knest.dev/container-rootfs-base:latest=$1" \
        -a "knest.dev/node:$version=$node_image" -- --file node/Dockerfile.container-rootfs \
        --build-arg "BASE=knest.dev/container-rootfs-base:latest" --build-arg "NODE=knest.dev/node:$version" node
}

launcher() {
    need go mmdebstrap
    local sbom
    sbom
    sbom=$cached
    cached launcher "$(hash_of "$sbom" -- launcher debian oci.sh)" launcher/build.sh "$sbom/sbom"
    hand launcher:latest "$cached/image.tar"
}

# peer: what `make bench` holds the images against.
peer() {
    need mmdebstrap
    local programs=()
    kubernetes
    module containerd committed
    cached peer "$(hash_of "${programs[@]}" -- peer debian/mirror.sh node/root/usr/lib)" peer/build.sh "${programs[@]}"
    echo "$cached"
}

hollow() {
    need go
    cached hollow "$(hash_of "$version" "$(go env GOVERSION)" -- kubernetes/kubernetes kubernetes/hollow kubernetes/hollow.sh)" \
        kubernetes/hollow.sh "$version"
}

[ -z "${KNEST_PUSH-}" ] || need skopeo
case ${1:-all} in
all)
    kernel
    node
    launcher
    ;;
kernel | node | launcher | virtink | container-rootfs-base | hollow | peer) "$1" ;;
*) die "usage: $(sed -n 's/^# usage: //p' build.sh)" ;;
esac
