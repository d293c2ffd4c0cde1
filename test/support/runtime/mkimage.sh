#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# mkimage.sh OUT.tar NAME:TAG [HOST_FILE=IMAGE_PATH]...
# An OCI-layout image archive of busybox-static and the named executables. No network, no docker; ~0.4 s.
set -eu
out=$1 ref=$2
shift 2
busybox=/bin/busybox
case $(uname -m) in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; *) arch=$(uname -m) ;; esac
t=$(mktemp -d)
trap 'rm -rf "$t"' EXIT
pack() { tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner "$@"; }
# put FILE: make it a blob; sets digest and size
put() {
  size=$(stat -c %s "$1")
  digest=sha256:$(sha256sum < "$1" | cut -d' ' -f1)
  mv "$1" "$t/layout/blobs/sha256/${digest#*:}"
}

mkdir -p "$t"/root/{bin,etc,proc,sys,dev,tmp,root,var/www} "$t/layout/blobs/sha256"
cp "$busybox" "$t/root/bin/busybox"
for applet in $("$busybox" --list | grep -v -x busybox); do ln -s busybox "$t/root/bin/$applet"; done
printf 'root:x:0:0:root:/root:/bin/sh\nistio-proxy:x:1337:1337::/:/bin/sh\n' > "$t/root/etc/passwd"
printf 'root:x:0:\nistio-proxy:x:1337:\n' > "$t/root/etc/group"
for extra; do install -D -m 755 "${extra%%=*}" "$t/root/${extra#*=}"; done

pack -C "$t/root" -cf "$t/layer" .
put "$t/layer"; layer_digest=$digest layer_size=$size   # uncompressed: the digest is the diff_id, too
cat > "$t/config" <<J
{"architecture":"$arch","os":"linux","config":{"Env":["PATH=/bin"],"Entrypoint":["/bin/sleep","2147483647"]},"rootfs":{"type":"layers","diff_ids":["$layer_digest"]},"history":[{"created_by":"mkimage.sh"}]}
J
put "$t/config"; config_digest=$digest config_size=$size
cat > "$t/manifest" <<J
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"$config_digest","size":$config_size},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"$layer_digest","size":$layer_size}]}
J
put "$t/manifest"
echo '{"imageLayoutVersion":"1.0.0"}' > "$t/layout/oci-layout"
cat > "$t/layout/index.json" <<J
{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"$digest","size":$size,"platform":{"os":"linux","architecture":"$arch"},"annotations":{"io.containerd.image.name":"$ref","org.opencontainers.image.ref.name":"${ref##*:}"}}]}
J
pack -C "$t/layout" -cf "$out" oci-layout index.json blobs
