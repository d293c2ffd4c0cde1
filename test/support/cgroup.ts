// SPDX-License-Identifier: Apache-2.0
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { own } from './cleanup.ts'
import { processes, removeResource } from './runtime/resource.ts'

/** Where this machine has cgroup v2: `/sys/fs/cgroup`, or below it on a hybrid machine. */
export function cgroup2Root(): string {
  for (const line of readFileSync('/proc/self/mounts', 'utf8').split('\n')) {
    const [, dir, type] = line.split(' ')
    if (type === 'cgroup2' && dir) return dir
  }
  throw new Error('no cgroup2 mount')
}

let created = 0

/** A cgroup of the test's own. Disposing it kills what is in it and removes it from every hierarchy. */
export class Cgroup implements AsyncDisposable {
  /** Below the root, as in /proc/PID/cgroup. */
  readonly path: string
  readonly dir: string
  readonly #remove: () => Promise<void>

  private constructor(path: string, remove: () => Promise<void>) {
    this.path = path
    this.dir = cgroup2Root() + path
    this.#remove = remove
    mkdirSync(this.dir, { recursive: true })
  }

  /** Default path: a name that no other process uses. */
  static create(path = `/ambt${process.pid}-c${++created}`): Cgroup {
    if (existsSync(cgroup2Root() + path)) throw new Error(`cgroup ${path} is there already`)
    return new Cgroup(path, own({ kind: 'cgroup', path }))
  }

  /** Goes with this one, or earlier. */
  child(name: string): Cgroup {
    const path = `${this.path}/${name}`
    return new Cgroup(path, () => removeResource({ kind: 'cgroup', path }))
  }

  /** The cgroup id, which is the inode. */
  get id(): bigint {
    return statSync(this.dir, { bigint: true }).ino
  }

  /** All threads of a process. */
  move(pid: number): void {
    writeFileSync(`${this.dir}/cgroup.procs`, String(pid))
  }

  /** Processes in it and below it. */
  pids(): number[] {
    const below = readdirSync(this.dir, { recursive: true, withFileTypes: true }).filter((entry) =>
      entry.isDirectory(),
    )
    return [this.dir, ...below.map((entry) => `${entry.parentPath}/${entry.name}`)].flatMap(processes)
  }

  dispose(): Promise<void> {
    return this.#remove()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose()
  }
}
