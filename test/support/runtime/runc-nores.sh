#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# runc-nores.sh: stand-in for runc where the cgroup v2 tree lacks the cpu, memory, pids and io controllers (a hybrid machine:
# they are bound to v1). On `create` and `run` it edits config.json, ~10 ms:
#  - drops the resource limits (device filter and the rest stay: they are the real runc's business)
#  - expands a systemd-driver cgroupsPath "a-b-c.slice:prefix:name" to the path that systemd would make of it,
#    /a.slice/a-b.slice/a-b-c.slice/prefix-name.scope, so a systemd node's layout can be had without systemd
set -eu
REAL=${REAL_RUNC:-/usr/sbin/runc}
args=("$@") edit= bundle=
for ((i = 0; i < ${#args[@]}; i++)); do
  case ${args[i]} in
    create|run) edit=1;;
    --bundle|-b) bundle=${args[i+1]};;
    --bundle=*) bundle=${args[i]#*=};;
  esac
done
if [ -n "$edit" ] && [ -n "$bundle" ]; then
  jq -c '
    if .linux.resources then .linux.resources |= del(.cpu, .memory, .pids, .blockIO, .hugepageLimits, .unified) else . end
    | if (.linux.cgroupsPath // "" | test("^[^/]*\\.slice:[^:]*:.*$")) then
        .linux.cgroupsPath |= (split(":") as [$slice, $prefix, $name]
          | ($slice | rtrimstr(".slice") | split("-")) as $part
          | "/" + ([range(1; ($part | length) + 1) as $i | ($part[:$i] | join("-")) + ".slice"] | join("/"))
          + "/" + $prefix + "-" + $name + ".scope")
      else . end' "$bundle/config.json" > "$bundle/config.json.new"
  mv "$bundle/config.json.new" "$bundle/config.json"
fi
exec "$REAL" "$@"
