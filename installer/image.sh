#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# image.sh DIRECTORY: what an image is to have in /usr/local/bin: the executable and its native files. A container's root file system
# is read-only and its /dev/shm not executable, so they cannot be unpacked there.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p "$1"
conf=$(mktemp -d)
trap 'rm -rf "$conf"' EXIT
# The installer extends a chain.
echo '{ "cniVersion": "1.0.0", "name": "none", "plugins": [{ "type": "none" }] }' >"$conf/none.conflist"
dist/ambridge install --bin-dir "$1" --conf-dir "$conf"
