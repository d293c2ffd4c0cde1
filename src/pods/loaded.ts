// SPDX-License-Identifier: Apache-2.0
/** Are the programs there? A pod that is enrolled while they are not would talk past the mesh. */
import { existsSync, readdirSync } from 'node:fs'
import { dirname, join } from 'node:path/posix'
import { readLinkPin } from '../bpf/link.ts'
import { requireSettings } from '../bpf/pods.ts'
import { Store } from '../bpf/store.ts'
import { isBpffs, pinPaths } from '../linux/bpffs.ts'
import { isThere } from '../linux/path.ts'
import { RemedyError } from '../remedy.ts'

const remedy = 'run "ambridge load" on this node (the ambridge agent does it)'

/** Without any of these, connections of a pod leave uncaptured. */
const indispensable = ['connect4', 'connect6', 'sockops']

/** Whether `ambridge load` ran at all since the node booted. */
export function isLoaded(bpffs: string): boolean {
  return isThere(join(pinPaths(bpffs).maps, 'settings'))
}

/**
 * Throws RemedyError unless the programs are loaded below `bpffs`, and attached to cgroups that are there; `impaired`: when
 * they were, and the pods that are enrolled now talk past the mesh.
 */
export function requireLoaded(bpffs: string): void {
  const { maps, links } = pinPaths(bpffs)
  if (!isLoaded(bpffs)) throw notLoaded(bpffs)
  using store = new Store(maps)
  if (requireSettings(store).objects === 0) {
    throw new RemedyError(`the eBPF programs in ${bpffs} are loaded in part`, remedy)
  }
  const names = readdirSync(links)
  for (const program of indispensable) {
    const pins = names.filter((name) => name.startsWith(`${program}-`))
    if (pins.some((name) => readLinkPin(join(links, name)).alive)) continue
    const message = `eBPF program ${program} is attached to no cgroup that is there`
    throw new RemedyError(message, remedy, { kind: 'impaired' })
  }
}

function notLoaded(bpffs: string): RemedyError {
  const dir = nearestExisting(bpffs)
  if (isBpffs(dir))
    return new RemedyError(`the eBPF programs are not loaded: no maps in ${pinPaths(bpffs).maps}`, remedy)
  const message = `bpffs is not mounted: ${dir} is on another file system`
  return new RemedyError(message, `mount it: mount -t bpf bpf /sys/fs/bpf; then ${remedy}`)
}

function nearestExisting(path: string): string {
  return existsSync(path) || path === '/' ? path : nearestExisting(dirname(path))
}
