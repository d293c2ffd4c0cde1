// SPDX-License-Identifier: Apache-2.0
import { statSync, unlinkSync } from 'node:fs'

/** Codes for "nothing is at this path", nor can be. */
const absentCodes: readonly unknown[] = [
  'ENOENT',
  'ENOTDIR',
  'ELOOP',
  'ENAMETOOLONG',
  'ERR_INVALID_ARG_VALUE', // NUL
]

/** Whether a failed call says that nothing is at its path. */
export function isAbsent(err: unknown): boolean {
  return absentCodes.includes((err as NodeJS.ErrnoException).code)
}

/** Not existsSync: who cannot look must not be told that nothing is there. */
export function isThere(path: string): boolean {
  try {
    return statSync(path, { throwIfNoEntry: false }) !== undefined
  } catch (err) {
    if (isAbsent(err)) return false
    throw err
  }
}

/** Removes a file, if it is there. */
export function removeFile(path: string): void {
  // A read-only file system refuses to remove even what is not there.
  if (!isThere(path)) return
  try {
    unlinkSync(path)
  } catch (err) {
    if (!isAbsent(err)) throw err
  }
}
