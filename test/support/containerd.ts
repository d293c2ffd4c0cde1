// SPDX-License-Identifier: Apache-2.0
import { cpSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { tryRun } from './exec.ts'
import { image } from './image.ts'

const ownPlugins = fileURLToPath(new URL('./runtime/plugins', import.meta.url))
const runcWithoutLimits = fileURLToPath(new URL('./runtime/runc-nores.sh', import.meta.url))

export interface ContainerdPaths {
  readonly dir: string
  readonly sock: string
  readonly binDir: string
  readonly confDir: string
}

/** A config with everything below one directory, and no restriction that needs rights which a test machine may lack. */
export async function writeConfig(paths: ContainerdPaths, cgroups: 'hybrid' | 'v2'): Promise<string> {
  const { dir, sock, binDir, confDir } = paths
  const cri = 'plugins."io.containerd.grpc.v1.cri"'
  const disabled = [
    ...[
      'snapshotter.v1.btrfs',
      'snapshotter.v1.zfs',
      'snapshotter.v1.devmapper',
      'snapshotter.v1.aufs',
      'internal.v1.opt',
    ],
    ...['tracing.processor.v1.otlp', 'internal.v1.tracing', 'nri.v1.nri'],
  ]
  const text = `version = 2
root = "${dir}/root"
state = "${dir}/state"
disabled_plugins = ${JSON.stringify(disabled.map((name) => `io.containerd.${name}`))}
[grpc]
  address = "${sock}"
[ttrpc]
  address = "${sock}.ttrpc"
[${cri}]
  sandbox_image = "${image}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  enable_selinux = false
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  netns_mounts_under_state_dir = true
[${cri}.cni]
  bin_dir = "${binDir}"
  conf_dir = "${confDir}"
  max_conf_num = 1
[${cri}.containerd]
  snapshotter = "${await snapshotter(dir)}"
  default_runtime_name = "runc"
[${cri}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  pod_annotations = ["*"]
[${cri}.containerd.runtimes.runc.options]
  BinaryName = "${cgroups === 'v2' ? runcWithoutLimits : '/usr/sbin/runc'}"
  Root = "${dir}/runc"
  SystemdCgroup = false
`
  writeFileSync(`${dir}/config.toml`, text)
  return `${dir}/config.toml`
}

/** overlayfs does not stack on an overlay with writable layers. */
export async function snapshotter(dir: string): Promise<'native' | 'overlayfs'> {
  const { stdout } = await tryRun('stat', ['-f', '-c', '%T', dir])
  return stdout.trim() === 'overlayfs' ? 'native' : 'overlayfs'
}

/** The node's plugin directory: stock plugins as links, the kit's own ones and those under test as copies. */
export function installPlugins(binDir: string, stock: string, underTest?: string): void {
  mkdirSync(binDir, { recursive: true })
  for (const name of readdirSync(stock)) symlinkSync(`${stock}/${name}`, `${binDir}/${name}`)
  for (const source of [ownPlugins, ...(underTest ? [underTest] : [])]) {
    for (const name of readdirSync(source)) {
      rmSync(`${binDir}/${name}`, { recursive: true, force: true })
      cpSync(`${source}/${name}`, `${binDir}/${name}`, { recursive: true })
    }
  }
}
