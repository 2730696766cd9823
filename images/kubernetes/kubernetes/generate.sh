#!/bin/sh
# Writes the Go module (go.mod, go.sum) that builds one release of Kubernetes into a directory.
# usage: generate.sh VERSION [DIRECTORY]      e.g. generate.sh v1.37.2
#
# Kubernetes requires its staging modules (k8s.io/api …) at v0.0.0 and replaces them by directories,
# which only counts in its own tree. Here each is replaced by the module of the same release.
set -eu
version=$1
directory=${2:-$(dirname "$0")}
staging=v0.${version#v1.}
commands="kubeadm kubectl kubelet kube-apiserver kube-controller-manager kube-scheduler kube-proxy"

cd "$directory"
upstream=$(cd / && go mod download -json "k8s.io/kubernetes@$version" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
{
    echo "module knest.dev/images/kubernetes"
    sed -n 's/^go 1/\ngo 1/p' "$upstream"
    printf '\ntool (\n'
    for command in $commands; do printf '\tk8s.io/kubernetes/cmd/%s\n' "$command"; done
    printf ')\n\nrequire k8s.io/kubernetes %s\n\nreplace (\n' "$version"
    sed -n "s,^[[:space:]]*\(k8s\.io/[^ ]*\) v0\.0\.0\$,\t\1 => \1 $staging,p" "$upstream"
    echo ")"
} >go.mod.new
mv go.mod.new go.mod
go mod tidy
