#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# fetch-deb.sh SUITE DIRECTORY PACKAGE...      download binary packages of another Debian suite and unpack them below DIRECTORY
# fetch-deb.sh --source SUITE DIRECTORY PACKAGE...   download the .orig tarball of source packages into DIRECTORY, nothing unpacked
# Nothing is installed, and the machine's own apt lists and sources are not touched. The mirror is the one that the machine's own
# apt sources name for its release; the key ring is Debian's.
#   fetch-deb.sh trixie rt/trixie containerd       -> rt/trixie/usr/bin/containerd (1.7)
#   fetch-deb.sh sid rt/sid containerd containernetworking-plugins   -> containerd 2.x, plugins that speak CNI 1.1.0
#   APT_DIR  where lists and downloads are kept (default: a mktemp directory, removed at the end)
set -eu
SOURCE=; [ "${1:-}" != --source ] || { SOURCE=1; shift; }
SUITE=${1:?suite} OUT=${2:?directory}; shift 2
[ $# -gt 0 ] || { echo "no package named" >&2; exit 2; }
. /etc/os-release
URI=${DEBIAN_URI:-$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' | awk -v r="$VERSION_CODENAME" '$1 == r { print $2; exit }')}
[ -n "$URI" ] || { echo "no mirror of Debian's archive found in the apt sources; set DEBIAN_URI" >&2; exit 1; }
if [ -z "${APT_DIR:-}" ]; then APT_DIR=$(mktemp -d); trap 'rm -rf "$APT_DIR"' EXIT; fi
mkdir -p "$APT_DIR/$SUITE"/{lists/partial,cache/archives/partial} "$OUT"
A=$(cd "$APT_DIR/$SUITE" && pwd) OUT=$(cd "$OUT" && pwd)
for t in deb deb-src; do echo "$t [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $URI $SUITE main"; done > "$A/sources.list"
cat > "$A/apt.conf" <<J
Dir::Etc::sourcelist "$A/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State::lists "$A/lists";
Dir::Cache "$A/cache";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
APT::Sandbox::User "root";
J
export APT_CONFIG=$A/apt.conf
apt-get -qq update
if [ -n "$SOURCE" ]; then
  cd "$OUT" && apt-get -qq source --download-only --tar-only "$@"
else
  D=$(mktemp -d); cd "$D"
  for p; do apt-get -qq download "$p/$SUITE"; done
  for f in *.deb; do echo "$f"; dpkg -x "$f" "$OUT"; done
  cd / && rm -rf "$D"
fi
