// SPDX-License-Identifier: Apache-2.0
import { readSync } from 'node:fs'
import { CniCode, CniError } from './errors.ts'

const maxBytes = 4 * 1024 * 1024

/** All of stdin. Refuses more than 4 MiB. */
export function readStdin(fd = 0): string {
  const chunks: Buffer[] = []
  let total = 0
  for (;;) {
    const chunk = Buffer.allocUnsafe(65536)
    const length = read(fd, chunk)
    if (length === 0) return Buffer.concat(chunks, total).toString('utf8')
    total += length
    if (total > maxBytes) {
      throw new CniError(CniCode.decode, 'network configuration is larger than 4 MiB', {
        details: 'stdin must hold one network configuration and nothing else',
      })
    }
    chunks.push(chunk.subarray(0, length))
  }
}

function read(fd: number, chunk: Buffer): number {
  for (;;) {
    try {
      return readSync(fd, chunk)
    } catch (cause) {
      const code = (cause as NodeJS.ErrnoException).code
      if (code === 'EOF') return 0
      if (code !== 'EAGAIN') throw new CniError(CniCode.io, 'cannot read stdin', { cause })
      // The runtime may hand over a non-blocking pipe that is still empty.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2)
    }
  }
}
