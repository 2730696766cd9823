#!/bin/bash
# Builds a Dockerfile with the engine that is there, into a Docker archive (which, unlike an OCI one, all
# engines leave uncompressed).
# usage: engine.sh DIRECTORY NAME [-r NAME=TAR]… [-a NAME=ARCHIVE]… -- BUILD-ARGUMENT… CONTEXT
#
#   -r   a root file system that becomes the image NAME first
#   -a   an archive of the image NAME
# The result is DIRECTORY/image.tar. An engine counts when it answers, not when its command exists; without
# one Debian's buildah builds in a chroot, which needs no daemon and no right to mount.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
directory=$1 name=$2
shift 2
roots=() archives=()
while getopts r:a: option; do
    case $option in
    r) roots+=("$OPTARG") ;;
    a) archives+=("$OPTARG") ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))

for engine in docker podman; do
    timeout 10 "$engine" info >/dev/null 2>&1 || continue
    echo "with $engine, which answers"
    for root in "${roots[@]}"; do "$engine" import "${root#*=}" "${root%%=*}"; done
    for archive in "${archives[@]}"; do "$engine" load --input "${archive#*=}"; done
    DOCKER_BUILDKIT=1 "$engine" build --tag "$name" "$@"
    "$engine" save --output "$directory/image.tar" "$name"
    exit
done

command -v buildah >/dev/null || { echo "no engine: neither docker nor podman answers, and there is no buildah" && exit 1; }
echo "with buildah in a chroot, as neither docker nor podman answers"
storage=$directory/storage
trap 'rm -rf "$storage" "$directory/root.oci"' EXIT
for driver in overlay vfs; do
    buildah=(buildah --root "$storage" --runroot "$storage/run" --storage-driver "$driver")
    "${buildah[@]}" images >/dev/null 2>&1 && break
    rm -rf "$storage"
done
# take NAME TRANSPORT:FILE
take() { "${buildah[@]}" tag "$("${buildah[@]}" pull --quiet "$2")" "$1"; }
for root in "${roots[@]}"; do
    "$here/oci.sh" "$directory/root.oci" "${root%%=*}" "${root#*=}"
    take "${root%%=*}" "oci-archive:$directory/root.oci"
done
for archive in "${archives[@]}"; do
    transport=docker-archive
    ! tar -tf "${archive#*=}" oci-layout >/dev/null 2>&1 || transport=oci-archive
    take "${archive%%=*}" "$transport:${archive#*=}"
done
"${buildah[@]}" bud --isolation chroot --pull-never --tag "$name" "$@"
"${buildah[@]}" push --quiet "$name" "docker-archive:$directory/image.tar:$name"
"${buildah[@]}" rmi --all --force >/dev/null
