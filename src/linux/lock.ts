// SPDX-License-Identifier: Apache-2.0
import { closeSync, fstatSync, openSync } from 'node:fs'
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
