// SPDX-License-Identifier: Apache-2.0
/** Things that outlive the process that made them, and how each is removed. Removing what is already gone succeeds. */
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

export type Resource =
  | { readonly kind: 'netns'; readonly name: string }
  /** A cgroup with all that is below it, in every hierarchy; its processes are killed. `path` as in /proc/PID/cgroup. */
  | { readonly kind: 'cgroup'; readonly path: string }
  /** Also right for a folder of pins. */
  | { readonly kind: 'dir'; readonly path: string }

export async function removeResource(resource: Resource): Promise<void> {
  switch (resource.kind) {
    case 'netns':
      return removeNetns(resource.name)
    case 'cgroup':
      return removeCgroup(resource.path)
    case 'dir':
      return rmSync(resource.path, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 })
  }
}

function removeNetns(name: string): void {
  if (!existsSync(`/run/netns/${name}`)) return
  const { status, stderr } = spawnSync('ip', ['netns', 'del', name], { encoding: 'utf8', timeout: 10_000 })
  if (status !== 0 && existsSync(`/run/netns/${name}`)) throw new Error(`remove netns ${name}: ${stderr}`)
}

async function removeCgroup(path: string): Promise<void> {
  if (!/^\/[^/]/.test(path)) throw new Error(`not a cgroup below the root: ${path}`)
  const trees = hierarchies().map((root) => root + path)
  const deadline = Date.now() + 10_000
  for (;;) {
    const dirs = trees.filter(existsSync).flatMap((tree) => [...descendants(tree), tree])
    if (dirs.length === 0) return
    if (Date.now() > deadline)
      throw new Error(`remove cgroup ${dirs.join(' ')}: processes ${dirs.flatMap(processes).join(' ')} stay`)
    for (const dir of dirs) kill(dir)
    for (const dir of dirs) tryRmdir(dir)
    if (dirs.some(existsSync)) await sleep(10)
  }
}

/** Where cgroup hierarchies are mounted: one on a v2 machine, else each controller's and `unified`. */
export function hierarchies(): string[] {
  const mounts = readFileSync('/proc/self/mounts', 'utf8').split('\n')
  return mounts
    .map((line) => line.split(' '))
    .flatMap(([, dir = '', type]) => (type?.startsWith('cgroup') ? [dir] : []))
}

/** Children before parents, as rmdir wants them. */
function descendants(dir: string): string[] {
  try {
    const children = readdirSync(dir, { withFileTypes: true }).filter((entry) => entry.isDirectory())
    return children.flatMap(({ name }) => [...descendants(`${dir}/${name}`), `${dir}/${name}`])
  } catch {
    return []
  }
}

export function processes(dir: string): number[] {
  try {
    return readFileSync(`${dir}/cgroup.procs`, 'utf8').split('\n').filter(Boolean).map(Number)
  } catch {
    return []
  }
}

function kill(dir: string): void {
  try {
    if (existsSync(`${dir}/cgroup.kill`)) writeFileSync(`${dir}/cgroup.kill`, '1')
    // 0: a process of another pid namespace, which is not ours to see
    else for (const pid of processes(dir)) if (pid > 0) process.kill(pid, 'SIGKILL')
  } catch {
    // a process or the cgroup went away meanwhile
  }
}

function tryRmdir(dir: string): void {
  try {
    rmdirSync(dir)
  } catch {
    // busy until its last process is reaped: the caller tries again
  }
}
