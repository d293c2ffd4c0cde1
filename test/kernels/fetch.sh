#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# fetch.sh SUITE: the kernel of a Debian suite, and the module that init loads, in build/cache/kernels/SUITE.
# Nothing is installed, and what is there already stays as it is.
set -euo pipefail
suite=${1:?suite}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=$here/../../build/cache/kernels
[ ! -e "$cache/$suite" ] || exit 0
mkdir -p "$cache"
tmp=$(mktemp -d "$cache/tmp.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
export APT_DIR=$tmp/apt

# fetch_deb SUITE PACKAGE
fetch_deb() {
	bash "$here/../support/runtime/fetch-deb.sh" "$1" "$tmp/deb" "$2" >/dev/null
}

# The package that a metapackage stands for.
dependency_of() {
	APT_CONFIG=$APT_DIR/$suite/apt.conf apt-cache depends "$1" | awk '$1 == "Depends:" { print $2; exit }'
}

fetch_deb "$suite" linux-image-cloud-amd64
fetch_deb "$suite" "$(dependency_of linux-image-cloud-amd64)"

mkdir "$tmp/kernel"
cp "$tmp"/deb/boot/vmlinuz-* "$tmp/kernel/vmlinuz"
find "$tmp/deb" -name 'veth.ko*' -exec cp {} "$tmp/kernel" \;
for module in "$tmp"/kernel/*.xz; do
	[ ! -e "$module" ] || busybox unxz "$module"
done
mv -T "$tmp/kernel" "$cache/$suite"
