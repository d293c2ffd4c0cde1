// SPDX-License-Identifier: Apache-2.0
import { closeSync, openSync } from 'node:fs'
import { checkErrno } from '../native.ts'
import { libc } from './libc.ts'

/** sys/file.h */
const LOCK_EX = 2

/** An exclusive lock on a directory, against other processes that take it. Waits. Released on dispose, and with the process. */
export class DirLock implements Disposable {
  readonly #fd: number

  private constructor(fd: number) {
    this.#fd = fd
  }

  static take(dir: string): DirLock {
    const fd = openSync(dir, 'r')
    try {
      checkErrno(`lock ${dir}`, libc.flock(fd, LOCK_EX))
    } catch (err) {
      closeSync(fd)
      throw err
    }
    return new DirLock(fd)
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd)
  }
}
