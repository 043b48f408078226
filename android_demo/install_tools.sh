#!/bin/sh
# Installs what the Android demo is built with where it is missing: Debian's JDK and Maven, which takes root.
set -eu
if command -v javac > /dev/null && command -v mvn > /dev/null; then exit 0; fi
if [ "$(id -u)" != 0 ]; then
  echo "The Android demo is built with JDK 17 and Maven: install openjdk-17-jdk-headless and maven." >&2
  exit 1
fi
apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends openjdk-17-jdk-headless maven > /dev/null
