#!/bin/sh
# usage: build.sh DIRECTORY
set -eu
cd "$(dirname "$0")"
CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$1/sbom" .
