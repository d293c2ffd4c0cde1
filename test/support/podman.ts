// SPDX-License-Identifier: Apache-2.0
/** podman 4 with its CNI backend, on a node without a runtime of its own. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Conflist } from './conflists.ts'
import { snapshotter } from './containerd.ts'
import type { ExecResult } from './exec.ts'
import { imageArchive } from './image.ts'
import type { NodeSpace } from './node-space.ts'
import { libraryPath } from './runtimes.ts'

const runcWithoutLimits = fileURLToPath(new URL('./runtime/runc-nores.sh', import.meta.url))

/** `podman ARGS...` in the node. */
export type Podman = (args: readonly string[]) => Promise<ExecResult>

export interface PodmanOptions {
  /** Where its packages are unpacked. */
  readonly root: string
  readonly binDir: string
  readonly conflist: Conflist
}

/** With the kit's image loaded. */
export async function setUpPodman(
  node: NodeSpace,
  { root, binDir, conflist }: PodmanOptions,
): Promise<Podman> {
  const dir = `${node.dir}/podman`
  for (const each of ['etc', 'cni', 'tmp', 'private']) mkdirSync(`${dir}/${each}`, { recursive: true })
  writeFileSync(`${dir}/etc/policy.json`, '{ "default": [ { "type": "insecureAcceptAnything" } ] }')
  writeFileSync(`${dir}/cni/10-net.conflist`, JSON.stringify(conflist))
  writeFileSync(`${dir}/containers.conf`, containersConf(dir, root, binDir))
  const driver = (await snapshotter(dir)) === 'native' ? 'vfs' : 'overlay'
  const storage = `[storage]\ndriver = "${driver}"\ngraphroot = "${dir}/root"\nrunroot = "${dir}/run"\n`
  writeFileSync(`${dir}/storage.conf`, storage)
  // Fixed paths of podman's, and its network namespaces, which are not for the whole machine to see.
  const mounts = `mkdir -p /etc/containers /var/lib/containers && mount --bind ${dir}/etc /etc/containers &&
    mount --bind ${dir}/private /var/lib/containers && mount -t tmpfs tmpfs /run/netns`
  const podman = inNode(node, dir, root)
  await succeed(node.inNode('sh', ['-c', mounts]))
  await succeed(podman(['load', '-q', '-i', await imageArchive()]))
  return podman
}

function containersConf(dir: string, root: string, binDir: string): string {
  return `[containers]
cgroupns = "private"
default_sysctls = []
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
conmon_path = ["${root}/usr/bin/conmon"]
tmp_dir = "${dir}/libpod"
static_dir = "${dir}/static"
volume_path = "${dir}/volumes"
[engine.runtimes]
runc = ["${runcWithoutLimits}"]
[network]
network_backend = "cni"
network_config_dir = "${dir}/cni"
cni_plugin_dirs = ["${binDir}"]
`
}

function inNode(node: NodeSpace, dir: string, root: string): Podman {
  const env = {
    CONTAINERS_CONF: `${dir}/containers.conf`,
    CONTAINERS_STORAGE_CONF: `${dir}/storage.conf`,
    TMPDIR: `${dir}/tmp`,
    LD_LIBRARY_PATH: libraryPath(root),
    PATH: `${root}/usr/bin:/usr/sbin:/usr/bin:/sbin:/bin`,
  }
  return (args) => node.inNode(`${root}/usr/bin/podman`, args, { env, timeoutMs: 60_000 })
}

async function succeed(result: Promise<ExecResult>): Promise<void> {
  const { code, stdout, stderr } = await result
  if (code !== 0) throw new Error(`exit code ${code}\n${stdout}${stderr}`)
}
