#!/bin/sh
# SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
# Makes build/libbpf.so: libbpf, libelf and zlib in one shared object that needs only libc >= 2.28.
# Reads the static libraries of libbpf-dev, libelf-dev and zlib1g-dev.
set -eu

here=$(dirname "$(readlink -f "$0")")
out=${1:-$here/../../build}
libs=/usr/lib/$(gcc -print-multiarch)
newest_glibc=2.28

mkdir -p "$out"
# In the output's file system, so that the last step is a rename.
work=$(mktemp -d "$out/.libbpf.XXXXXX")
trap 'rm -rf "$work"' EXIT

cp "$libs/libbpf.a" "$work/libbpf.a"
objcopy --redefine-sym stderr=libbpf_stderr "$work/libbpf.a"
echo '{ global: bpf_*; libbpf_*; btf__*; local: *; };' > "$work/exports"
gcc -O2 -Wall -Wextra -Werror -fPIC -c "$here/shim.c" -o "$work/shim.o"
gcc -shared -o "$work/libbpf.so" -Wl,-soname,libbpf-ambridge.so "$work/shim.o" \
	-Wl,--whole-archive "$work/libbpf.a" -Wl,--no-whole-archive "$libs/libelf.a" "$libs/libz.a" \
	-Wl,--version-script="$work/exports" -Wl,-Bsymbolic -Wl,-z,defs,-z,relro,-z,now,-z,text \
	-Wl,--gc-sections -Wl,--as-needed -s

needed=$(objdump -p "$work/libbpf.so" | awk '$1 == "NEEDED" { print $2 }')
for lib in $needed; do
	case $lib in
	libc.so.6 | ld-linux*) ;;
	*) echo "libbpf.so needs $lib: link the static library of it as well" >&2; exit 1 ;;
	esac
done
glibc=$(objdump -T "$work/libbpf.so" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -V | tail -n 1)
if [ "$(printf '%s\n' "$glibc" $newest_glibc | sort -V | tail -n 1)" != $newest_glibc ]; then
	echo "libbpf.so needs glibc $glibc, Node only $newest_glibc: override the newer symbol in shim.c" >&2
	exit 1
fi
chmod 0555 "$work/libbpf.so"
mv -f "$work/libbpf.so" "$out/libbpf.so"
