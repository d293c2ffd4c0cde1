#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh SUITE IDENTITY: boots the kernel that fetch.sh SUITE brought, with `init` as all of user space, until
# it restarts. IDENTITY: how the proxy is told apart, cgroup or mark.
# stdout: what init reports. The kernel's console: build/cache/kernels/SUITE.console.
set -euo pipefail
suite=${1:?suite}
identity=${2:?cgroup or mark}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$(cd "$here/../../build" && pwd)
kernel=$build/cache/kernels/$suite
console=$kernel.console

command -v qemu-system-x86_64 >/dev/null || {
	echo 'qemu-system-x86_64 is missing: apt-get install --no-install-recommends qemu-system-x86' >&2
	exit 1
}

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

put() {
	install -D -m 755 "$1" "$tmp/root/$2"
}

# put_dynamic FILE PATH: with the libraries that it is linked to, where it looks for them.
put_dynamic() {
	put "$@"
	ldd "$1" | grep -o '/[^ ]*' | while read -r library; do put "$library" "$library"; done
}

put "$here/init" init
put "$(command -v busybox)" bin/busybox
put "$build/tools/sock" bin/sock
put "$build/tools/ztunnel-standin" bin/ztunnel-standin
put "$kernel/veth.ko" veth.ko
put_dynamic "$build/../dist/ambridge" bin/ambridge
put_dynamic "$(command -v ip)" sbin/ip
# Not compressed: to unpack it would take the guest longer than to read it.
(cd "$tmp/root" && find . | busybox cpio -o -H newc) >"$tmp/initrd" 2>/dev/null

# Emulated: KVM inside a virtual machine is not always the real thing. The second serial line is for init
# alone.
timeout 150 nice qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 1G \
	-nodefaults -display none -no-reboot -kernel "$kernel/vmlinuz" -initrd "$tmp/initrd" \
	-append "console=ttyS0 panic=-1 loglevel=4 identity=$identity" \
	-serial "file:$console" -serial stdio </dev/null
