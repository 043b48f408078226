#!/bin/sh
# Installs what the Android demo is built with where it is missing: Debian's JDK, Maven and tools of Android, which takes
# root.
set -eu
missing=""
for each in javac:openjdk-17-jdk-headless mvn:maven npm:npm aapt:aapt apksigner:apksigner dexdump:dexdump; do
  command -v "${each%%:*}" > /dev/null || missing="$missing ${each#*:}"
done
[ -e /usr/share/android-framework-res/framework-res.apk ] || missing="$missing android-framework-res"
if [ -z "$missing" ]; then exit 0; fi
if [ "$(id -u)" != 0 ]; then
  echo "The Android demo is built with programs that are missing here: apt-get install --no-install-recommends$missing" >&2
  exit 1
fi
apt-get -qq update
# shellcheck disable=SC2086  # several words
DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq install -y --no-install-recommends $missing > /dev/null
