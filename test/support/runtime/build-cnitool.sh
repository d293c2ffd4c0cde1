#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# build-cnitool.sh DIRECTORY: builds DIRECTORY/cnitool, libcni's own command: the one way to have CHECK and GC called.
# No Debian package ships it. Source: Debian's source package golang-github-appc-cni 1.3 (from sid); compiler: golang-1.24 (from trixie;
# 1.19 fails: it has no package "slices"). No module is downloaded (GOPATH mode). 13 s on two cores.
set -eu
KIT=$(cd "$(dirname "$0")" && pwd)
mkdir -p "${1:?directory}"; D=$(cd "$1" && pwd)
"$KIT/fetch-deb.sh" trixie "$D/go" golang-1.24-go golang-1.24-src
"$KIT/fetch-deb.sh" --source sid "$D/src" golang-github-appc-cni
GOROOT=$D/go/usr/lib/go-1.24
mkdir -p "$D/gopath/src/github.com/containernetworking/cni"
tar -xf "$D"/src/golang-github-appc-cni_*.orig.tar.* --strip-components=1 -C "$D/gopath/src/github.com/containernetworking/cni"
export GOROOT GOPATH=$D/gopath GOCACHE=$D/gocache GO111MODULE=off CGO_ENABLED=0 GOPROXY=off GOTOOLCHAIN=local
nice "$GOROOT/bin/go" build -o "$D/cnitool" github.com/containernetworking/cni/cnitool
chmod -R u+w "$D/gopath"; rm -rf "$D"/{go,src,gopath,gocache}      # keep the binary alone
echo "$D/cnitool"
