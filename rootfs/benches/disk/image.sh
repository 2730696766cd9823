#!/usr/bin/env bash
# Makes the image that the benchmark turns into disks: five layers of Debian, 680 MB packed, with the
# recipe beside the repository, as OCI layouts. Takes minutes, a network and the right to mount.
# usage: image.sh TOOLS DIRECTORY
#
#   DIRECTORY/mixed  gzip and zstd   /gzip  /zstd  all the same   /big  gzip, and a directory of 20,000 files
set -euo pipefail
tools=$(realpath "$1")
target=$2
mkdir -p "$(dirname "$target")"

[[ ${UNSHARED-} ]] || exec env UNSHARED=1 unshare --mount "$0" "$@"
work=$(mktemp -d "$(dirname "$(realpath -m "$target")")/.image.XXXXXX")
# What a failed build left mounted belongs to this machine.
trap 'cd /; rm -rf --one-file-system "$work"' EXIT

mkdir -p "$work"/{build,lay,tmp,out} "$work/tools/usr/bin"
ln -s "$(command -v mmdebstrap)" "$work/tools/usr/bin/mmdebstrap"
bash "$tools/build-layers.sh" "$work"

cd "$work"
for layer in 0 1 2 3; do python3 "$tools/pack.py" "build/u$layer" "lay/l$layer.tar"; done
EXC='srv/edge/(big|sparse)' python3 "$tools/pack.py" build/u4 lay/l4.tar
INC='srv/edge/(big|sparse)' python3 "$tools/pack.py" build/u4 lay/l5.tar
rm -rf build tmp
for tar in lay/*.tar; do
    gzip -6 -n -k "$tar" &
    zstd -q -3 -k "$tar"
    wait $!
done
# layout NAME LAYER:COMPRESSION…: blobs that another layout has are shared.
layout() {
    mkdir -p "out/$1/blobs/sha256"
    find out -path '*/blobs/sha256/*' ! -path "out/$1/*" -exec ln -f -t "out/$1/blobs/sha256" {} \;
    python3 "$tools/mkimg.py" "out/$1" "${@:2}"
    python3 - "out/$1" <<'PYTHON'
import json, os, sys
directory = sys.argv[1]
blobs = directory + '/blobs/sha256/'
used = {m['digest'] for m in json.load(open(directory + '/index.json'))['manifests']}
for manifest in list(used):
    document = json.load(open(blobs + manifest[7:]))
    used |= {d['digest'] for d in [document['config'], *document['layers']]}
for blob in os.listdir(blobs):
    if 'sha256:' + blob not in used:
        os.remove(blobs + blob)
PYTHON
}
layout mixed lay/l{0,1,2}.tar:gz lay/l3.tar:zst lay/l4.tar:gz
layout gzip lay/l{0,1,2,3,4}.tar:gz
layout zstd lay/l{0,1,2,3,4}.tar:zst
layout big lay/l{0,1,2,3,4,5}.tar:gz
rm -rf "$target"
mv out "$target"
