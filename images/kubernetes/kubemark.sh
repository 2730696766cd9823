#!/bin/bash
# Builds kubemark, Kubernetes's own hollow node, which the tests put in kubelet's place.
# usage: kubemark.sh VERSION DIRECTORY
#
# From the module that builds Kubernetes, with one more tool: no go.mod of its own to keep in step.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
version=$1 directory=$2
tool=k8s.io/kubernetes/cmd/kubemark

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cp "$here"/kubernetes/go.{mod,sum} .
[ "$(go list -m -f '{{.Version}}' k8s.io/kubernetes)" = "$version" ] ||
    "$here/kubernetes/generate.sh" "$version" "$work"
go mod edit -tool "$tool"
CGO_ENABLED=0 go build -mod=mod -trimpath -buildvcs=false -tags no_btrfs,no_devmapper,no_zfs \
    -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version" -o "$directory/kubemark" "$tool"
echo "$version" >"$directory/kubemark.version"
