#!/bin/sh
# Packs layer tars into an OCI archive: an image without an engine.
# usage: oci.sh [-e WORD]… [-l LABEL=VALUE]… FILE NAME LAYER.tar…      the WORDs are its entrypoint
#
# NAME goes into both annotations that readers look for: the one of OCI and the one of containerd.
set -eu

entrypoint='' labels=''
while getopts e:l: option; do
    case $option in
    e) entrypoint="$entrypoint${entrypoint:+,}\"$OPTARG\"" ;;
    l) labels="$labels${labels:+,}\"${OPTARG%%=*}\":\"${OPTARG#*=}\"" ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
file=$1 name=$2
shift 2

layout=$(mktemp -d "$(dirname "$file")/.oci.XXXXXX")
trap 'rm -rf "$layout"' EXIT
blobs=$layout/blobs/sha256
mkdir -p "$blobs"

# blob MEDIA-TYPE FILE: moves FILE among the blobs and prints its descriptor.
blob() {
    digest=$(sha256sum "$2" | cut -d' ' -f1)
    size=$(stat -Lc %s "$2")
    mv -f "$2" "$blobs/$digest"
    printf '{"mediaType":"%s","digest":"sha256:%s","size":%s}' "$1" "$digest" "$size"
}

layers='' diffs=''
for layer; do
    ln "$layer" "$layout/layer" 2>/dev/null || cp "$layer" "$layout/layer"
    descriptor=$(blob application/vnd.oci.image.layer.v1.tar "$layout/layer")
    layers="$layers${layers:+,}$descriptor"
    digest=${descriptor#*\"digest\":\"}
    diffs="$diffs${diffs:+,}\"${digest%%\"*}\""
done

cat >"$layout/config" <<END
{"architecture":"amd64","os":"linux","config":{"Entrypoint":[$entrypoint],"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Labels":{$labels}},"rootfs":{"type":"layers","diff_ids":[$diffs]}}
END
config=$(blob application/vnd.oci.image.config.v1+json "$layout/config")
cat >"$layout/manifest" <<END
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":$config,"layers":[$layers]}
END
manifest=$(blob application/vnd.oci.image.manifest.v1+json "$layout/manifest")
annotations="\"org.opencontainers.image.ref.name\":\"$name\",\"io.containerd.image.name\":\"$name\""
cat >"$layout/index.json" <<END
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[${manifest%\}},"annotations":{$annotations},"platform":{"architecture":"amd64","os":"linux"}}]}
END
echo '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
tar -C "$layout" --owner=0 --group=0 --numeric-owner --sort=name -cf "$file.part" oci-layout index.json blobs
mv "$file.part" "$file"
