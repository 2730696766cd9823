#!/bin/sh
# Fetches the release's own Kubernetes binaries, each checked against the checksum published beside it.
# usage: fetch.sh VERSION [DIRECTORY]
#
# Without a directory it only says, by its exit code, whether the release answers within 10 seconds.
# KNEST_KUBERNETES_URL names a mirror.
set -eu
version=$1
url=${KNEST_KUBERNETES_URL:-https://dl.k8s.io/release}/$version/bin/linux/amd64

if [ $# = 1 ]; then
    exec curl --fail --silent --location --max-time 10 --output /dev/null "$url/kubeadm.sha256"
fi
directory=$2
for program in kubeadm kubelet kubectl kube-apiserver kube-controller-manager kube-scheduler kube-proxy; do
    file=$directory/$program
    curl --fail --silent --show-error --location --connect-timeout 10 --speed-limit 1000 --speed-time 60 \
        --output "$file" "$url/$program"
    expected=$(curl --fail --silent --show-error --location --max-time 60 "$url/$program.sha256")
    echo "$expected  $file" | sha256sum --check --quiet -
    chmod 755 "$file"
    echo "fetched $program"
done
echo "$version" >"$directory/kubernetes.version"
