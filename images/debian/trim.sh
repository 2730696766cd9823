#!/bin/sh
# Notes which packages a Debian root file system has, and takes out of it what a node never reads:
# documentation (not the licences), translations, the hardware database, what apt and dpkg leave behind.
# usage: trim.sh ROOT
set -eu
cd "$1"
mkdir -p usr/share/knest
# shellcheck disable=SC2016 # the dollars are dpkg's
dpkg-query --admindir=var/lib/dpkg --show --showformat '${Package} ${Version} ${Architecture}\n' >usr/share/knest/packages
find usr/share/doc -type f ! -name copyright -delete
rm -rf usr/share/man usr/share/info usr/share/locale usr/share/bash-completion usr/share/zsh \
    usr/lib/udev/hwdb.bin usr/lib/udev/hwdb.d usr/lib/x86_64-linux-gnu/gconv \
    var/lib/apt/lists/* var/cache/apt/*.bin var/log/*.log var/log/apt
