#!/bin/bash
# Builds the kernel and the node image and hands them to knest's image store; what did not change comes
# from the cache.
# usage: build.sh [all|kernel|node|hollow]
#
#   hollow                      only the tests' kubelet, kubemark
#
#   KNEST                       the knest to load them with; empty: build only, and print the files
#   KNEST_KUBERNETES_VERSION    v1.37.2 unless set
#   KNEST_KUBERNETES_BINARIES   a directory with Kubernetes's binaries of that version
#   KNEST_KUBERNETES_URL        a mirror of the release site
#   KNEST_CACHE_DIR             where the outputs are kept, below build/
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here" # hashes are over relative names
# shellcheck source=lib.sh
. ./lib.sh

version=${KNEST_KUBERNETES_VERSION:-v1.37.2}
[[ $version =~ ^v1\.[0-9]+\.[0-9]+$ ]] || die "KNEST_KUBERNETES_VERSION=$version is not of the form v1.37.2"

load() { # NAME FILE
    if [ -n "${KNEST-knest}" ]; then
        "${KNEST:-knest}" image load --name "$1" "$2"
    else
        echo "$1 $2"
    fi
}

kernel() {
    need apt-get bc bison flex gcc make xz
    local package source
    package=$(apt-cache search --names-only '^linux-source-[0-9.]+$' | cut -d' ' -f1 | sort -V | tail -n 1)
    [ -n "$package" ] || die "apt knows no linux-source package (apt-get update?)"
    source=$(apt-cache show --no-all-versions "$package" | sed -n 's/^Version: //p' | head -n 1)
    cached kernel "$(hash_of "$package $source" "$(gcc --version | head -n 1)" -- kernel oci.sh)" \
        kernel/build.sh "$package"
    load "knest.dev/kernel:$(<"$cached/version")" "$cached/image.tar"
    load knest.dev/kernel:latest "$cached/image.tar" # what `knest create` takes
}

# module NAME VERSION: a Go module's programs, added to $programs.
module() {
    cached "$1" "$(hash_of "$2" "$(go env GOVERSION)" -- "kubernetes/$1" kubernetes/module.sh)" \
        kubernetes/module.sh "$1" "$2"
    programs+=("$cached")
}

# Kubernetes itself: a directory that was given, else the release, else Go modules.
kubernetes() {
    local modules
    modules=kubernetes-$(hash_of "$version" "$(go env GOVERSION)" -- kubernetes/kubernetes kubernetes/module.sh)
    if [ -n "${KNEST_KUBERNETES_BINARIES-}" ]; then
        say "kubernetes $version: from $KNEST_KUBERNETES_BINARIES"
        programs+=("$(realpath "$KNEST_KUBERNETES_BINARIES")")
    elif [ ! -d "$builds/$modules" ] && kubernetes/fetch.sh "$version"; then
        say "kubernetes $version: the release's binaries"
        cached release "$(hash_of "$version" "${KNEST_KUBERNETES_URL-}" -- kubernetes/fetch.sh)" kubernetes/fetch.sh "$version"
        programs+=("$cached")
    else
        say "kubernetes $version: from Go modules, as the release site does not answer or did not before"
        module kubernetes "$version"
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
    module etcd "v$(sed -n 's,.*/etcd:\([0-9.]*\).*,\1,p' <<<"$list")"
    module coredns "$(sed -n 's,.*/coredns:,,p' <<<"$list")"
    for name in containerd cni kube-router cri-tools; do module $name committed; done
    cached store "$(hash_of "$(go env GOVERSION)" -- node/store)" node/store/build.sh
    programs+=("$cached")
    cached debian "$(hash_of -- node/debian)" node/debian/base.sh
    base=$cached
    cached node "$(hash_of "$version" "$base" "${programs[@]}" -- node oci.sh "${given[@]}")" \
        node/build.sh "knest.dev/node:$version" "$version" "$base" "${programs[@]}"
    load "knest.dev/node:$version" "$cached/image.tar"
}

hollow() {
    need go
    cached kubemark "$(hash_of "$version" "$(go env GOVERSION)" -- kubernetes/kubernetes kubernetes/kubemark.sh)" \
        kubernetes/kubemark.sh "$version"
}

case ${1:-all} in
all) kernel && node ;;
kernel | node | hollow) "$1" ;;
*) die "usage: build.sh [all|kernel|node|hollow]" ;;
esac
