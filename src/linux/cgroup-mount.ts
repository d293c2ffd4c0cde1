// SPDX-License-Identifier: Apache-2.0
/** Where the cgroup v2 tree is mounted, and how paths of /proc lead into it, also from a cgroup namespace of our own. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path/posix'
import { isAbsent } from './path.ts'
import { parseCgroups } from './procs.ts'

export interface Cgroup2Mount {
  readonly dir: string
  /** Levels above the root of this process's cgroup namespace; 0: the namespace has the whole tree. */
  readonly above: number
}

/** The mount of the whole tree. Undefined where there is none. */
export function cgroup2Mount(): Cgroup2Mount | undefined {
  return cgroup2MountIn(readFileSync('/proc/self/mountinfo', 'utf8'))
}

/**
 * Text of /proc/PID/mountinfo, which shows roots relative to the cgroup namespace of its reader: `/` is the namespace's own
 * part of the tree, `/../..` is what holds it. Mounts that others made elsewhere come last.
 */
export function cgroup2MountIn(mountinfo: string): Cgroup2Mount | undefined {
  const mounts = mountinfo.split('\n').flatMap(parseMount)
  const highest = Math.max(...mounts.map(({ above }) => above))
  const whole = mounts.filter(({ above }) => above === highest)
  return whole.find(({ dir }) => dir.startsWith('/sys/fs/cgroup')) ?? whole[0]
}

/** `31 23 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw`: fields 4 and 5, then the type. */
function parseMount(line: string): Cgroup2Mount[] {
  const [mount = '', source = ''] = line.split(' - ')
  const [, , , root = '', dir] = mount.split(' ')
  if (!source.startsWith('cgroup2 ') || dir === undefined || !/^(\/|(\/\.\.)+)$/.test(root)) return []
  return [{ dir: unescapeMount(dir), above: root.split('..').length - 1 }]
}

/** The kernel writes space, tab, newline and backslash in octal. */
function unescapeMount(text: string): string {
  return text.replaceAll(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  )
}

/**
 * A path of /proc/PID/cgroup as this process reads it, made relative to the mount: in a cgroup namespace of its own, `/` is the
 * root of that, and another pod's is `/../../podUID`. Undefined where the way cannot be told.
 */
export function pathBelowMount(path: string, { dir, above }: Cgroup2Mount): string | undefined {
  const base = above === 0 ? '/' : namespaceRoot(dir, above)
  const leadsOut = above === 0 && path.split('/').includes('..')
  return base === undefined || leadsOut ? undefined : join('/', base, path)
}

/** The kernel does not name what is above; but of the cgroups at that depth, it is the one that has this process. */
function namespaceRoot(dir: string, depth: number): string | undefined {
  const { cgroup: own } = parseCgroups(readFileSync('/proc/self/cgroup', 'utf8'))
  if (own.split('/').includes('..')) return undefined
  return descendants(dir, depth).find((path) => holds(join(dir, path, own), process.pid))
}

/** Paths of all cgroups that are this deep. */
function descendants(dir: string, depth: number): string[] {
  if (depth === 0) return ['']
  return childrenOf(dir).flatMap((name) =>
    descendants(join(dir, name), depth - 1).map((path) => join(name, path)),
  )
}

function childrenOf(dir: string): string[] {
  try {
    const entries = readdirSync(dir, { withFileTypes: true })
    return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name)
  } catch (err) {
    if (isAbsent(err)) return []
    throw err
  }
}

function holds(dir: string, pid: number): boolean {
  try {
    return readFileSync(join(dir, 'cgroup.procs'), 'utf8').split('\n').includes(String(pid))
  } catch (err) {
    // A threaded cgroup does not tell its processes.
    if (isAbsent(err) || (err as NodeJS.ErrnoException).code === 'EOPNOTSUPP') return false
    throw err
  }
}
