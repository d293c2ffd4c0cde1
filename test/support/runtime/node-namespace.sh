#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# node-namespace.sh NODE_DIR hybrid|v2 COMMAND...
# Run COMMAND in the private mount namespace of one node. What runtimes, plugins and agents write below /etc, /opt, /var, /run
# and /sys/fs/bpf stays in this namespace and goes with it, so nothing has to be removed from the machine.
# hybrid: /sys/fs/cgroup as the machine has it; v2: cgroup v2 alone.
set -eu
if [ -z "${NODE_NAMESPACE:-}" ]; then
  # slave: a netns that `ip netns add` makes later on the machine becomes visible here, and nothing gets out
  NODE_NAMESPACE=1 exec unshare --mount --propagation slave "$0" "$@"
fi
unset NODE_NAMESPACE
dir=$1 cgroups=$2
shift 2

private=$dir/private
mkdir -p "$private"
mount -t tmpfs -o mode=755 tmpfs "$private"
for top in /etc /opt /var; do
  mkdir -p "$private$top"/{upper,work}
  mount -t overlay -o "lowerdir=$top,upperdir=$private$top/upper,workdir=$private$top/work" overlay "$top"
done
mkdir -p "$private"/run/{netns,lock}
mount --rbind /run/netns "$private/run/netns"
mount --rbind "$private/run" /run
mount -t bpf -o mode=700 bpf /sys/fs/bpf

if [ "$cgroups" = v2 ] && [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
  # bound, not mounted anew: mount options of cgroup2 belong to the superblock, so they would change for the whole machine
  mkdir "$private/cgroup"
  mount --bind "$(findmnt -n -t cgroup2 -o TARGET | head -n 1)" "$private/cgroup"
  umount -R -l /sys/fs/cgroup
  mount --bind "$private/cgroup" /sys/fs/cgroup
  umount "$private/cgroup"
fi
mount --make-rshared /   # runtimes want shared propagation below them
echo $$ > "$dir/anchor.pid.new"
mv "$dir/anchor.pid.new" "$dir/anchor.pid"
exec "$@"
