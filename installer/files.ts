// SPDX-License-Identifier: Apache-2.0
/**
 * Changes to files of the host. Each is a step: found out first, made later, so that nothing is half-done
 * when one of them cannot be made. A file is written beside its place, synced and renamed.
 */
import * as fs from 'node:fs'
import { basename, dirname, join } from 'node:path'
import type { ConfKind } from './conflist.ts'

/** The host is not as it has to be. `remedy`: what to do about it. */
export class HostError extends Error {
  override readonly name = 'HostError'
  readonly remedy: string

  constructor(message: string, remedy: string, cause?: unknown) {
    super(message, { cause })
    this.remedy = remedy
  }
}

export interface Step {
  /** What kind of thing `path` is, for people. */
  readonly what: string
  readonly path: string
  readonly change: 'create' | 'update' | 'remove' | 'none'
  /** What is wanted is that nothing is at `path`. */
  readonly absent?: boolean
  /** Throws HostError. */
  apply(): void
}

export interface Attributes {
  readonly mode: number
  readonly uid: number
  readonly gid: number
}

/** A file of the configuration directory that a container runtime would look at. */
export interface ConfFile {
  readonly path: string
  readonly kind: ConfKind
}

/** Attributes of a file that belongs to this process's user: root, outside tests. */
export function owned(mode: number): Attributes {
  return { mode, uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 }
}

/** Throws unless files can be made in `dir`. */
export function requireWritable(dir: string, option: string): void {
  const stat = attempt(`look at ${dir}`, () => fs.statSync(dir, { throwIfNoEntry: false }))
  if (!stat?.isDirectory()) {
    const what = stat ? 'is not a directory' : 'does not exist'
    throw new HostError(`${dir} ${what}`, `name the directory that the container runtime uses: ${option} DIR`)
  }
  attempt(`write to ${dir}`, () => fs.accessSync(dir, fs.constants.W_OK | fs.constants.X_OK))
}

/** The files of `dir` in the order in which runtimes look at them; a .json, too, is a single plugin to them. */
export function confFiles(dir: string): ConfFile[] {
  const names = namesIn(dir).filter((name) => /\.(conf|conflist|json)$/.test(name))
  const paths = names.sort().map((name) => join(dir, name))
  return paths
    .filter((path) => fs.statSync(path, { throwIfNoEntry: false })?.isFile())
    .map((path) => ({ path, kind: path.endsWith('.conflist') ? 'list' : 'single' }))
}

export function namesIn(dir: string): string[] {
  if (!fs.existsSync(dir)) return []
  return attempt(`read ${dir}`, () => fs.readdirSync(dir))
}

export function readText(path: string): string {
  return attempt(`read ${path}`, () => fs.readFileSync(path, 'utf8'))
}

export function attributesOf(path: string): Attributes {
  const { mode, uid, gid } = attempt(`look at ${path}`, () => fs.statSync(path))
  return { mode: mode & 0o7777, uid, gid }
}

export function directoryStep(what: string, path: string, attributes: Attributes): Step {
  const stat = fs.lstatSync(path, { throwIfNoEntry: false })
  if (stat && !stat.isDirectory()) throw new HostError(`${path} is not a directory`, 'remove it')
  const change = stat === undefined ? 'create' : hasAttributes(stat, attributes) ? 'none' : 'update'
  const apply = () => {
    if (change === 'create') fs.mkdirSync(path)
    fs.chownSync(path, attributes.uid, attributes.gid)
    fs.chmodSync(path, attributes.mode)
    sync(dirname(path))
  }
  return { what, path, change, apply: () => attempt(`make ${path}`, apply) }
}

/** `source`: the bytes, or the path of the file that holds them. */
export function fileStep(what: string, path: string, source: Buffer | string, attributes: Attributes): Step {
  const stat = fs.lstatSync(path, { throwIfNoEntry: false })
  if (stat?.isDirectory()) throw new HostError(`${path} is a directory`, 'remove it')
  const same = stat?.isFile() && hasAttributes(stat, attributes) && sameContent(path, source)
  const change = stat === undefined ? 'create' : same ? 'none' : 'update'
  return { what, path, change, apply: () => writeFile(path, source, attributes) }
}

/** `path` may be a file, a link or a directory with all that is in it. */
export function removeStep(what: string, path: string): Step {
  const exists = fs.lstatSync(path, { throwIfNoEntry: false }) !== undefined
  const apply = () => {
    fs.rmSync(path, { recursive: true, force: true })
    sync(dirname(path))
  }
  const change = exists ? 'remove' : 'none'
  return { what, path, change, absent: true, apply: () => attempt(`remove ${path}`, apply) }
}

/** What interrupted runs left in `dir`. */
export function leftoverSteps(dir: string): Step[] {
  const leftovers = namesIn(dir).filter((name) => temporaryName.test(name))
  return leftovers.map((name) => removeStep('leftover of an interrupted run', join(dir, name)))
}

export function applySteps(steps: readonly Step[]): void {
  for (const step of steps) if (step.change !== 'none') step.apply()
}

const temporaryName = /^\..+\.\d+\.ambridge-tmp$/

/** No reader ever sees a part of the file, not even after a power failure. */
function writeFile(path: string, source: Buffer | string, attributes: Attributes): void {
  const temporary = join(dirname(path), `.${basename(path)}.${process.pid}.ambridge-tmp`)
  attempt(`write ${path}`, () => {
    // Process ids repeat from container to container, so an interrupted run may have used this name.
    fs.rmSync(temporary, { force: true })
    try {
      if (typeof source === 'string') fs.copyFileSync(source, temporary, fs.constants.COPYFILE_EXCL)
      else fs.writeFileSync(temporary, source, { flag: 'wx', mode: 0o600 })
      sync(temporary, attributes)
      fs.renameSync(temporary, path)
    } finally {
      fs.rmSync(temporary, { force: true })
    }
    sync(dirname(path))
  })
}

/** Makes the file or directory durable, with the attributes if there are any. */
function sync(path: string, attributes?: Attributes): void {
  const fd = fs.openSync(path, 'r')
  try {
    if (attributes) {
      fs.fchownSync(fd, attributes.uid, attributes.gid)
      fs.fchmodSync(fd, attributes.mode)
    }
    fs.fsyncSync(fd)
  } finally {
    fs.closeSync(fd)
  }
}

function hasAttributes(stat: fs.Stats, { mode, uid, gid }: Attributes): boolean {
  return (stat.mode & 0o7777) === mode && stat.uid === uid && stat.gid === gid
}

function sameContent(path: string, source: Buffer | string): boolean {
  if (typeof source === 'string') return sameFile(path, source)
  return fs.statSync(path).size === source.length && fs.readFileSync(path).equals(source)
}

/** In pieces: the executable is larger than the memory that a DaemonSet is given. */
function sameFile(a: string, b: string): boolean {
  const fds = [fs.openSync(a, 'r'), fs.openSync(b, 'r')] as const
  const pieces = [Buffer.alloc(1 << 20), Buffer.alloc(1 << 20)] as const
  try {
    for (;;) {
      const read = fs.readSync(fds[0], pieces[0])
      if (read !== fs.readSync(fds[1], pieces[1])) return false
      if (!pieces[0].subarray(0, read).equals(pieces[1].subarray(0, read))) return false
      if (read === 0) return true
    }
  } finally {
    for (const fd of fds) fs.closeSync(fd)
  }
}

const remedies: Readonly<Record<string, string>> = {
  EACCES: 'run it as root',
  EPERM: 'run it as root',
  EROFS: 'mount the file system read-write; in a container: a hostPath volume without readOnly',
  ENOSPC: 'free space on that file system, then run it again',
}

/** What the system refuses becomes a HostError that names the action. */
function attempt<T>(action: string, fn: () => T): T {
  try {
    return fn()
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    const remedy = remedies[code ?? ''] ?? 'repair that, then run it again: what is in place is kept'
    throw new HostError(`cannot ${action}: ${code ?? message}`, remedy, cause)
  }
}
