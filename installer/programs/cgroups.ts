// SPDX-License-Identifier: Apache-2.0
import { readdirSync, realpathSync, statSync } from 'node:fs'
import { join } from 'node:path/posix'
import { cgroup2Root, cgroupId, kubepodsCgroup } from '../../src/linux/cgroup.ts'
import { RemedyError } from '../../src/remedy.ts'

export function requireCgroupRoot(): string {
  const root = cgroup2Root()
  if (root !== undefined) return root
  throw new RemedyError(
    'no cgroup v2 hierarchy is mounted',
    'mount it: mount -t cgroup2 none /sys/fs/cgroup/unified',
  )
}

/**
 * The directory of the cgroup to capture in. `auto`: the kubepods cgroup, the narrowest that holds every pod; the root where there
 * is none, and on hybrid nodes, where the kubelet keeps no pods in the v2 hierarchy.
 */
export function captureCgroup(choice: string): string {
  const root = requireCgroupRoot()
  if (choice !== 'auto') return cgroupDir(root, choice, '--cgroup')
  return (root === '/sys/fs/cgroup' ? kubepodsCgroup(root) : undefined) ?? root
}

/** `path`: a directory of the cgroup file system, or relative to its root as in /proc/PID/cgroup. */
export function cgroupDir(root: string, path: string, option: string): string {
  for (const candidate of [path, join(root, path)]) {
    const dir = realDirectory(candidate)
    if (dir === root || dir?.startsWith(`${root}/`)) return dir
  }
  const remedy = `${option}: expected a directory below ${root}, or a path as in /proc/PID/cgroup`
  throw new RemedyError(`no such cgroup: ${path}`, remedy)
}

function realDirectory(path: string): string | undefined {
  try {
    return statSync(path).isDirectory() ? realpathSync(path) : undefined
  } catch {
    return undefined
  }
}

export function isBelow(dir: string, parent: string): boolean {
  return dir === parent || dir.startsWith(`${parent}/`)
}

/** Every cgroup from the root on: id → directory. Cgroups come and go meanwhile. */
export function cgroupDirs(root: string): Map<bigint, string> {
  const dirs = new Map<bigint, string>()
  const pending = [root]
  for (let dir = pending.pop(); dir !== undefined; dir = pending.pop()) {
    try {
      const below = readdirSync(dir, { withFileTypes: true }).filter((entry) => entry.isDirectory())
      dirs.set(cgroupId(dir), dir)
      pending.push(...below.map(({ name }) => join(String(dir), name)))
    } catch (err) {
      if ((err as NodeJS.ErrnoException).code !== 'ENOENT') throw err
    }
  }
  return dirs
}
