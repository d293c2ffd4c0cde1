// SPDX-License-Identifier: Apache-2.0
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs'
import { checkErrno } from '../native.ts'
import { LOCK_EX, libc } from './libc.ts'

/** An exclusive lock on a directory, against other processes that take it. Waits. Released on dispose, and with the process. */
export class DirLock implements Disposable {
  readonly #fd: number

  private constructor(fd: number) {
    this.#fd = fd
  }

  /** Undefined when the directory is not there, or was removed while this waited. */
  static take(dir: string): DirLock | undefined {
    const fd = openIfThere(dir)
    if (fd === undefined) return undefined
    try {
      checkErrno(`lock ${dir}`, libc.flock(fd, LOCK_EX))
      if (fstatSync(fd).nlink > 0) return new DirLock(fd)
    } catch (err) {
      closeSync(fd)
      throw err
    }
    closeSync(fd)
    return undefined
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd)
  }
}

function openIfThere(dir: string): number | undefined {
  try {
    return openSync(dir, 'r')
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw err
  }
}

export interface FileIdentity {
  readonly dev: bigint
  readonly ino: bigint
}

/** Which files are locked now by flock(2), of processes that this pid namespace shows. */
export function readFlocks(): (file: FileIdentity) => boolean {
  const locked = parseFlocks(readFileSync('/proc/locks', 'utf8'))
  return ({ dev, ino }) => locked.has(nameOf(dev, ino))
}

/** `1: FLOCK  ADVISORY  WRITE 1234 00:04:4026532281 0 EOF`; one that waits has `->` after its number. */
export function parseFlocks(text: string): ReadonlySet<string> {
  const pattern = /^\d+: (?:-> )?FLOCK .* ([0-9a-f]+:[0-9a-f]+:\d+) \d+ \S+$/gm
  return new Set([...text.matchAll(pattern)].map(([, name = '']) => name))
}

/** As the kernel writes it: major and minor number of the device in hex, the inode in decimal. */
function nameOf(dev: bigint, ino: bigint): string {
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn)
  const minor = (dev & 0xffn) | ((dev >> 12n) & 0xffffff00n)
  const hex = (value: bigint) => value.toString(16).padStart(2, '0')
  return `${hex(major)}:${hex(minor)}:${ino}`
}
