// SPDX-License-Identifier: Apache-2.0
/** Where pods are in the cgroup v2 tree. Directories are absolute and canonical, as `cgroup2Root` gives the root. */
import { realpathSync, statSync } from 'node:fs'
import { join, relative } from 'node:path/posix'
import { cgroup2Mount, pathBelowMount } from './cgroup-mount.ts'
import { isAbsent } from './path.ts'

/** The cgroup v2 mount: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on a hybrid node. Undefined where there is none. */
export function cgroup2Root(): string | undefined {
  return cgroup2Mount()?.dir
}

/** The directory for a v2 path of /proc/PID/cgroup that this process has read. Undefined if absent. */
export function cgroupDirOf(root: string, path: string): string | undefined {
  const mount = cgroup2Mount()
  const below = mount?.dir === root ? pathBelowMount(path, mount) : undefined
  if (below === undefined) return undefined
  return below === '/' ? root : existingCgroup(root, below)
}

/** The cgroup id, which is the inode of the directory. */
export function cgroupId(dir: string): bigint {
  return statSync(dir, { bigint: true }).ino
}

/** How far below the root, which is level 0: the level that bpf_get_current_ancestor_cgroup_id() asks for. */
export function cgroupLevel(root: string, dir: string): number {
  const below = relative(root, dir)
  if (below === '..' || below.startsWith('../')) throw new RangeError(`cgroup ${dir} is not below ${root}`)
  return below === '' ? 0 : below.split('/').length
}

/** Parents of all pods: of the cgroupfs and the systemd driver, and those of a kubelet in a container (kind). */
const kubepodsPaths = [
  'kubepods',
  'kubepods.slice',
  'kubelet/kubepods',
  'kubelet.slice/kubelet-kubepods.slice',
]

/** The directory that holds all pods, if there is one. */
export function kubepodsCgroup(root: string): string | undefined {
  return firstCgroup(root, kubepodsPaths)
}

export interface PodCgroupHints {
  /** runtimeConfig.cgroupPath: below the root, or only the name of a slice. */
  readonly cgroupPath?: string | undefined
  readonly podUid?: string | undefined
}

/** The directory of a pod's cgroup, by what the runtime says, else by the kubelet's layouts. Undefined if absent. */
export function findPodCgroup(root: string, { cgroupPath, podUid }: PodCgroupHints): string | undefined {
  const told = cgroupPath === undefined ? undefined : existingCgroup(root, expandSlice(cgroupPath))
  if (told !== undefined || podUid === undefined || !isPodUid(podUid)) return told
  // More than one is there after the kubelet's cgroup driver was changed.
  const parents = kubepodsPaths.filter((path) => existingCgroup(root, path) !== undefined)
  return firstCgroup(
    root,
    parents.flatMap((kubepods) => podPaths(kubepods, podUid)),
  )
}

/** A UUID, or for a static pod the hash of its manifest. */
const isPodUid = (uid: string) => /^[0-9a-zA-Z-]{1,128}$/.test(uid)

/** Guaranteed pods lack the level of their QoS class. */
const qosClasses = ['besteffort', 'burstable', undefined]

/** Below the root, in one of `kubepodsPaths`. */
function podPaths(kubepods: string, podUid: string): string[] {
  const [, slice] = /([^/]+)\.slice$/.exec(kubepods) ?? []
  if (slice === undefined) return qosClasses.map((qos) => join(kubepods, qos ?? '', `pod${podUid}`))
  const pod = `pod${podUid.replaceAll('-', '_')}.slice`
  return qosClasses.map((qos) =>
    qos === undefined
      ? `${kubepods}/${slice}-${pod}`
      : `${kubepods}/${slice}-${qos}.slice/${slice}-${qos}-${pod}`,
  )
}

/** systemd nests slices by their names: `a-b.slice` alone stands for `a.slice/a-b.slice`. No name has more than 255 bytes. */
function expandSlice(path: string): string {
  const [, name] = /^\/?([^/]{1,255})\.slice$/.exec(path) ?? []
  if (name === undefined) return path
  const parts = name.split('-')
  return parts.map((_, i) => `${parts.slice(0, i + 1).join('-')}.slice`).join('/')
}

function firstCgroup(root: string, paths: readonly string[]): string | undefined {
  for (const path of paths) {
    const dir = existingCgroup(root, path)
    if (dir !== undefined) return dir
  }
  return undefined
}

/** A directory strictly below the root, reached without `..` and links. */
function existingCgroup(root: string, path: string): string | undefined {
  if (path.includes('\0') || path.split('/').includes('..')) return undefined
  const dir = join(root, path).replace(/\/$/, '')
  try {
    // One call tells that it is there, a directory (the dot), and no link.
    return dir !== root && realpathSync.native(`${dir}/.`) === dir ? dir : undefined
  } catch (err) {
    if (isAbsent(err)) return undefined
    throw err
  }
}
