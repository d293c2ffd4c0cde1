#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What `npm run demo` runs: everything that is needed, then the demo.
set -eu
cd "$(dirname "$0")/.."
bash test/setup.sh
# exec: Ctrl-C is for the demo, which cleans up.
exec node_modules/.bin/node test/demo/main.ts
