#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything that `npm run build` makes, in order; what is up to date is left alone.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/node_modules/.bin:$PATH"

# One line per step, so that a slow one shows.
step() {
	echo "build: $1"
	shift
	"$@"
}

step 'eBPF programs and libbpf' make -s -C bpf
if [ -f test/tools/Makefile ]; then
	step 'tools of the tests' make -s -C test/tools
fi
step 'bundles' node installer/build/bundle.ts
step 'dist/ambridge' node installer/build/executable.ts
