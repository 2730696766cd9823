#!/bin/sh
# Makes a container's root file system of a few Debian packages and what they depend on.
# usage: extract.sh PACKAGE,PACKAGE… FILE.tar
#
# Nothing is installed: packages are only extracted (apt checks the archive's signature), and tools.sh links
# what their maintainer scripts would have linked.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
packages=$1 file=$2
suite=trixie
"$here/mirror.sh" $suite >"$file.sources"
# Without sources mmdebstrap takes its own default; an empty list would be none.
set --
while read -r source; do set -- "$@" "$source"; done <"$file.sources"
rm "$file.sources"
mmdebstrap --quiet --skip=output/dev --variant=extract --include="$packages" \
    --extract-hook="$here/tools.sh" --format=tar "$suite" "$file" "$@"
echo "${file##*/}: $(stat -c %s "$file") bytes"
