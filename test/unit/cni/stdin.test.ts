// SPDX-License-Identifier: Apache-2.0
import { once } from 'node:events'
import { closeSync, constants, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { execa } from 'execa'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { readStdin } from '../../../src/cni/stdin.ts'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(`${tmpdir()}/stdin-`)
})
afterEach(() => rmSync(dir, { recursive: true }))

const limit = 4 * 1024 * 1024

function readFile(content: string | Buffer): string {
  const path = `${dir}/file`
  writeFileSync(path, content)
  const fd = openSync(path, 'r')
  try {
    return readStdin(fd)
  } finally {
    closeSync(fd)
  }
}

test.for([0, 1, 65_535, 65_536, 65_537, limit])('%i bytes are read whole', (length) => {
  const text = '0123456789'.repeat(length / 10 + 1).slice(0, length)
  expect(readFile(text) === text).toBe(true)
})

test('a character that spans two reads stays one', () => {
  const text = `${'a'.repeat(65_535)}ä€`
  expect(readFile(text) === text).toBe(true)
})

test('more than 4 MiB is refused with code 6', () => {
  expect(() => readFile(Buffer.alloc(limit + 1, ' '))).toThrow(
    expect.objectContaining({
      code: 6,
      message: 'network configuration is larger than 4 MiB',
      details: 'stdin must hold one network configuration and nothing else',
    }),
  )
})

test('what cannot be read is code 5 with the cause', () => {
  const fd = openSync(dir, 'r')
  try {
    expect(() => readStdin(fd)).toThrow(
      expect.objectContaining({
        code: 5,
        message: 'cannot read stdin',
        details: expect.stringContaining('EISDIR'),
      }),
    )
  } finally {
    closeSync(fd)
  }
})

test('a non-blocking pipe that is still empty is waited for', async () => {
  const fifo = `${dir}/fifo`
  await execa('mkfifo', [fifo], { timeout: 5_000 })
  const fd = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK)
  // Holds the pipe open, then writes in two parts: the second comes while readStdin waits.
  const script = 'exec 3>"$1"; echo ready; sleep 0.1; printf "{" >&3; sleep 0.1; printf "}" >&3'
  const writer = execa('sh', ['-c', script, 'sh', fifo], { timeout: 5_000 })
  try {
    await once(writer.stdout, 'data')
    expect(readStdin(fd)).toBe('{}')
    await writer
  } finally {
    closeSync(fd)
  }
})
