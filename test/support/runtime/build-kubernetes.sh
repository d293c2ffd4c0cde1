#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# build-kubernetes.sh: prints a directory with kube-apiserver, kube-controller-manager, kube-scheduler, kubelet and kubectl, built from
# the Go modules of Kubernetes (Debian has no current ones), and Debian's etcd. What is there is left alone; the first time takes 3 to 6
# minutes on two cores, 110 MB of downloads and, until it is done, 4 GB of disk.
#   K8S_DIR  where it is kept, outside the repository; default ${XDG_CACHE_HOME:-/var/cache}/ambridge/kubernetes-VERSION
# Go: the machine's when it is 1.24 or newer, else trixie's, unpacked and not installed.
set -euo pipefail
KIT=$(cd "$(dirname "$0")" && pwd)
version=1.34.1
dir=${K8S_DIR:-${XDG_CACHE_HOME:-/var/cache}/ambridge/kubernetes-$version}
programs=(kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl)

say() { echo "build-kubernetes: $*" >&2; }

# Go to build with: sets go and, for an unpacked one, GOROOT.
find_go() {
  go=$(command -v go || true)
  case $("${go:-false}" env GOVERSION 2>/dev/null || true) in
    go1.2[4-9]* | go1.[3-9][0-9]*) return ;;
  esac
  say "Debian's Go 1.24"
  "$KIT/fetch-deb.sh" trixie "$work/go" golang-1.24-go golang-1.24-src >&2
  export GOROOT=$work/go/usr/lib/go-1.24
  go=$GOROOT/bin/go
  # Debian splits it in two; links to the installed place lead nowhere here.
  local part
  for part in "$work"/go/usr/share/go-1.24/*; do
    [ -e "$GOROOT/${part##*/}" ] || ln -sfn "$part" "$GOROOT/"
  done
}

# The staging modules are required at v0.0.0 and replaced within the main repository; published, each is v0.MINOR.PATCH.
write_module() {
  local source
  printf 'module kubernetes-programs\n\ngo 1.24.0\n' > go.mod
  source=$("$go" mod download -json "k8s.io/kubernetes@v$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  [ -n "$source" ] || { say "cannot download Kubernetes $version: is the module proxy of Go within reach?"; exit 1; }
  {
    printf '\nrequire k8s.io/kubernetes v%s\n\nreplace (\n' $version
    sed -n "s#^\t\(k8s.io/[a-z-]*\) => ./staging.*#\t\1 => \1 v0.${version#*.}#p" "$source/go.mod"
    echo ')'
  } >> go.mod
  {
    printf '//go:build tools\n\npackage tools\n\nimport (\n'
    printf '\t_ "k8s.io/kubernetes/cmd/%s"\n' "${programs[@]}"
    echo ')'
  } > tools.go
}

compile() {
  local info=k8s.io/component-base/version
  local flags="-s -w -X $info.gitVersion=v$version -X $info.gitMajor=1 -X $info.gitMinor=$(cut -d. -f2 <<<$version)"
  "$go" build -v -trimpath -ldflags "$flags" -o "$work/bin/" "${programs[@]/#/k8s.io/kubernetes/cmd/}" 2>&1 |
    tee build.log | awk 'NR % 200 == 0 { print "build-kubernetes: " NR " packages"; fflush() }' >&2 ||
    { tail -n 20 build.log >&2; exit 1; }
}

build() {
  say "builds Kubernetes $version in $dir (once; about 6 minutes)"
  mkdir -p "$work"/{bin,module}
  find_go
  # Of its own, so that nothing but the programs stays.
  export GOPATH=$work/gopath GOCACHE=$work/gocache GOTOOLCHAIN=local GOFLAGS='-buildvcs=false -modcacherw' CGO_ENABLED=0 GOWORK=off
  cd "$work/module"
  say 'downloads modules'
  write_module
  "$go" mod tidy -e > tidy.log 2>&1 || { tail -n 20 tidy.log >&2; exit 1; }
  say 'compiles'
  compile
  "$KIT/fetch-deb.sh" bookworm "$work/etcd" etcd-server >&2
  cp "$work/etcd/usr/bin/etcd" "$work/bin/"
  mv "$work/bin" "$dir"
  cd / && rm -rf "$work"
  say 'done'
}

if [ ! -d "$dir" ]; then
  mkdir -p "$(dirname "$dir")"
  exec 9> "$dir.lock"
  flock 9
  # What an interrupted build has compiled is used by the next.
  work=$dir.build
  [ -d "$dir" ] || { renice -n 5 $$ > /dev/null; build; }
fi
echo "$dir"
