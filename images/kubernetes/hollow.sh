#!/bin/bash
# Builds hollow-kubelet, which the tests put in kubelet's place.
# usage: hollow.sh VERSION DIRECTORY
#
# Within the module that builds Kubernetes: no go.mod of its own to keep in step.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
version=$1 directory=$2

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cp -r "$here"/kubernetes/go.{mod,sum} "$here/hollow" .
[ "$(go list -m -f '{{.Version}}' k8s.io/kubernetes)" = "$version" ] ||
    "$here/kubernetes/generate.sh" "$version" "$work"
CGO_ENABLED=0 go build -mod=mod -trimpath -buildvcs=false -tags no_btrfs,no_devmapper,no_zfs \
    -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version" -o "$directory/hollow-kubelet" ./hollow
echo "$version" >"$directory/hollow-kubelet.version"
