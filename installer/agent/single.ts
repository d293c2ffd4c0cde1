// SPDX-License-Identifier: Apache-2.0
import { closeSync } from 'node:fs'
import { connectSeqpacket } from '../../src/linux/unix.ts'
import { SystemError } from '../../src/native.ts'
import { RemedyError } from '../../src/remedy.ts'

/** Two agents would take their sockets from each other. Throws RemedyError where one listens at `socket`. */
export function requireSingle(socket: string): void {
  if (!isListening(socket)) return
  const remedy =
    'there is one for each node: end that one first, or run this with --socket and --zds of its own'
  throw new RemedyError(`another agent listens on ${socket}`, remedy)
}

function isListening(path: string): boolean {
  try {
    closeSync(connectSeqpacket(path, 1000))
    return true
  } catch (err) {
    if (!(err instanceof SystemError)) throw err
    // EAGAIN: it has not accepted others, either.
    return err.code === 'EAGAIN'
  }
}
