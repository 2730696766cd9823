#!/bin/bash
# Builds the tools of one Go module beside this file, statically, into a directory.
# usage: module.sh MODULE VERSION DIRECTORY         e.g. module.sh etcd v3.7.0 /tmp/etcd
#
# Each module stands alone, so their dependencies don't mix. VERSION may be `committed`, what MODULE/go.mod
# says. Those of other Kubernetes releases that knest supports lie in older/MODULE-VERSION/; for any other
# version a module is made for the occasion, checked by Go's checksum database alone. DIRECTORY also gets
# MODULE.version.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
module=$1 version=$2 directory=$3

case $module in # its main requirement, and the variable that holds its version
kubernetes) main=k8s.io/kubernetes variable=k8s.io/component-base/version.gitVersion ;;
etcd) main=go.etcd.io/etcd/server/v3 variable='' ;;
coredns) main=github.com/coredns/coredns variable='' ;;
containerd) main=github.com/containerd/containerd/v2 variable=$main/version.Version ;;
kube-router) main=github.com/cloudnativelabs/kube-router/v2 variable=$main/pkg/version.Version ;;
cni) main=github.com/containernetworking/plugins variable=$main/pkg/utils/buildversion.BuildVersion ;;
cri-tools) main=sigs.k8s.io/cri-tools variable=$main/pkg/version.Version ;;
*) echo "no module $module" && exit 2 ;;
esac

cd "$here/$module"
committed=$(go list -m -f '{{.Version}}' "$main")
[ "$version" != committed ] || version=$committed
if [ "$version" != "$committed" ] && [ -d "$here/older/$module-$version" ]; then
    cd "$here/older/$module-$version"
elif [ "$version" != "$committed" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mapfile -t tools < <(go list tool)
    cd "$work"
    if [ "$module" = kubernetes ]; then
        "$here/kubernetes/generate.sh" "$version" "$work"
    else
        # From nothing: an older version next to what the newer one required may not build.
        go mod init "knest.dev/images/$module"
        go get -tool "${tools[@]/%/@$version}"
    fi
fi

flags="-s -w"
[ -z "$variable" ] || flags="$flags -X $variable=$version"
if [ "$module" = kubernetes ]; then
    minor=${version#v1.}
    prefix=${variable%.*}
    flags="$flags -X $prefix.gitMajor=1 -X $prefix.gitMinor=${minor%%.*} -X $prefix.gitTreeState=clean"
fi
CGO_ENABLED=0 go build -trimpath -buildvcs=false -tags no_btrfs,no_devmapper,no_zfs -ldflags "$flags" -o "$directory/" tool
[ ! -e "$directory/server" ] || mv "$directory/server" "$directory/etcd"
echo "$version" >"$directory/$module.version"
