# shellcheck shell=bash
# Sourced by build.sh: messages, and the cache of costly outputs.
#
#   $builds/KIND-HASH/   an output; HASH is over everything that went into it
#   $builds/.KIND.lock   held while one is made
#   $builds/.KIND.log    what a failed one said
#   $builds/.KIND.*/     one being made; becomes KIND-HASH in one rename
builds=${KNEST_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/knest}/build
kept=2

say() { echo "$(date +%H:%M:%S) images: $*" >&2; }
die() { say "$*"; exit 1; }

# need COMMAND…: ends with the list of those that are not there.
need() {
    local missing=() command
    for command; do command -v "$command" >/dev/null || missing+=("$command"); done
    [ ${#missing[@]} = 0 ] || die "missing: ${missing[*]} (packages: images/packages.txt; Go: 1.26.6 or newer)"
}

# hash TEXT… -- PATH…: of the texts, and of every file below the paths with its name and mode.
hash_of() {
    local texts=()
    while [ "$1" != -- ]; do texts+=("$1") && shift; done
    shift
    {
        printf '%s\n' "${texts[@]}"
        [ $# = 0 ] || find "$@" -type f -printf '%m %p\n' | LC_ALL=C sort
        [ $# = 0 ] || find "$@" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
    } | sha256sum | cut -c1-16
}

# cached KIND HASH COMMAND…: sets $cached to the directory KIND-HASH, which COMMAND fills (its last argument
# is a new directory) unless it is there. Older outputs of the kind go, but the newest $kept.
cached() {
    local kind=$1 hash=$2 making
    cached=$builds/$kind-$hash
    shift 2
    mkdir -p "$builds"
    exec {lock}>"$builds/.$kind.lock"
    flock "$lock"
    if [ ! -d "$cached" ]; then
        rm -rf "$builds/.$kind".??????
        making=$(mktemp -d "$builds/.$kind.XXXXXX")
        chmod 755 "$making"
        say "$kind: building ($hash)"
        SECONDS=0
        "$@" "$making" 2>&1 | tee "$builds/.$kind.log" | sed -u "s/^/    $kind: /" >&2 || {
            rm -rf "$making"
            die "$kind: failed; the whole log is $builds/.$kind.log, and it ends:
$(tail -n 5 "$builds/.$kind.log")"
        }
        mv "$making" "$cached"
        rm "$builds/.$kind.log"
        say "$kind: built in $SECONDS s"
    fi
    touch "$cached"
    find "$builds" -maxdepth 1 -name "$kind-????????????????" -printf '%T@ %p\0' | sort -zrn |
        tail -zn +$((kept + 1)) | cut -zd' ' -f2- | xargs -0r rm -rf
    exec {lock}>&-
}
