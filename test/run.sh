#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh: what `npm test` runs: types, lint, generated files, Kubernetes (built once), every test, as root.
# Its last line is "N passed, N failed".
# CI=true: longer fuzzing, and a skipped test counts as failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
exec </dev/null
export PATH="$PWD/node_modules/.bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export REQUIRE_ROOT=1
[ "${CI:-}" != true ] || export FUZZ_RUNS=100000

results=build/test-results.json
failed_gates=()

gate() {
	local name=$1
	shift
	echo "gate: $name"
	"$@" || failed_gates+=("$name")
}

if ! bash test/setup.sh; then
	echo '0 passed, 1 failed'
	exit 1
fi
rm -f $results
gate types npm run -s typecheck
gate lint npm run -s check
gate 'generated files' npm run -s gen:check
gate Kubernetes bash test/support/runtime/build-kubernetes.sh
echo 'gate: tests'
vitest run --reporter=default --reporter=json --outputFile.json=$results
node test/summary.ts $results $? "${failed_gates[@]}"
