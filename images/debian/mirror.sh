#!/bin/sh
# Prints the apt sources of a Debian suite, one a line: the archive that this host's apt uses, when it is
# Debian's; nothing where it is not, which lets mmdebstrap take its default.
# usage: mirror.sh SUITE
set -eu
suite=$1
# shellcheck disable=SC2016 # the dollars are apt's
mirror() { apt-get indextargets --format '$(LABEL) $(REPO_URI)' 2>/dev/null | sed -n "s/^$1 //p" | head -n 1; }
debian=$(mirror Debian)
security=$(mirror Debian-Security)
[ -n "$debian" ] || exit 0
echo "deb $debian $suite main"
echo "deb $debian $suite-updates main"
[ -z "$security" ] || echo "deb $security $suite-security main"
