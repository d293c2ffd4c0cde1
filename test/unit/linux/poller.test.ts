// SPDX-License-Identifier: Apache-2.0
import { closeSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { Poller } from '../../../src/linux/poller.ts'
import {
  acceptConnection,
  connectSeqpacket,
  listenSeqpacket,
  receivePacket,
  sendPacket,
} from '../../../src/linux/unix.ts'
import { tryRun, waitFor } from '../../support/exec.ts'

let dir: string
let open: Set<number>
let poller: Poller
let descriptorsBefore: number

const openDescriptors = () => readdirSync('/proc/self/fd').length

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'poller-'))
  open = new Set()
  descriptorsBefore = openDescriptors()
  poller = new Poller()
})
afterEach(async () => {
  poller[Symbol.dispose]()
  for (const fd of open) closeSync(fd)
  rmSync(dir, { recursive: true })
  await waitFor('descriptors are closed', () => openDescriptors() === descriptorsBefore)
})

function mine(fd: number): number {
  open.add(fd)
  return fd
}

function close(fd: number): void {
  open.delete(fd)
  closeSync(fd)
}

/** [ours, the peer's] */
function pair(): [number, number] {
  const server = listenSeqpacket(join(dir, 'socket'))
  try {
    const client = mine(connectSeqpacket(join(dir, 'socket'), 2000))
    return [mine(acceptConnection(server) ?? -1), client]
  } finally {
    closeSync(server)
  }
}

const text = (fd: number) => receivePacket(fd, 100)?.bytes.toString()

test('a handler is called when its descriptor is readable, and again', async () => {
  const [ours, peer] = pair()
  const got: (string | undefined)[] = []
  poller.add(ours, () => got.push(text(ours)))
  sendPacket(peer, Buffer.from('one'))
  sendPacket(peer, Buffer.from('two'))
  await waitFor('both packets', () => got.length === 2)
  sendPacket(peer, Buffer.from('three'))
  await waitFor('another packet', () => got.length === 3)
  expect(got).toEqual(['one', 'two', 'three'])
})

test('a peer that closes is noticed', async () => {
  const [ours, peer] = pair()
  const got: (string | undefined)[] = []
  poller.add(ours, () => {
    got.push(text(ours))
    poller.remove(ours)
  })
  close(peer)
  await waitFor('the end', () => got.length > 0)
  expect(got).toEqual([''])
})

test('more descriptors than one epoll_wait tells', async () => {
  const pairs = Array.from({ length: 150 }, pair)
  const seen = new Set<number>()
  for (const [ours, peer] of pairs) {
    poller.add(ours, () => {
      text(ours)
      seen.add(ours)
    })
    sendPacket(peer, Buffer.from('x'))
  }
  await waitFor('all of them', () => seen.size === pairs.length)
})

test('a removed descriptor is quiet, and may be added again', async () => {
  const [[ours, peer], [other, otherPeer]] = [pair(), pair()]
  const seen: string[] = []
  poller.add(ours, () => seen.push('removed'))
  poller.remove(ours)
  poller.remove(ours)
  poller.add(other, () => seen.push(text(other) ?? ''))
  sendPacket(peer, Buffer.from('x'))
  sendPacket(otherPeer, Buffer.from('other'))
  await waitFor('the other', () => seen.length > 0)
  expect(seen).toEqual(['other'])
  poller.add(ours, () => seen.push(text(ours) ?? ''))
  await waitFor('added again', () => seen.includes('x'))
})

test('an event of a removed descriptor is not told to the next one of the same number', async () => {
  const both = [pair(), pair()]
  const [[trigger, triggerPeer], calls] = [pair(), [] as string[]]
  // While a handler runs nothing waits, so that one epoll_wait tells both.
  poller.add(trigger, () => {
    text(trigger)
    for (const [, peer] of both) sendPacket(peer, Buffer.from('x'))
  })
  const replaceBoth = () => {
    calls.push('first')
    for (const [ours] of both) {
      poller.remove(ours)
      text(ours)
      poller.add(ours, () => calls.push(text(ours) ?? 'nothing'))
    }
    setImmediate(() => {
      for (const [, peer] of both) sendPacket(peer, Buffer.from('next'))
    })
  }
  for (const [ours] of both) poller.add(ours, replaceBoth)
  sendPacket(triggerPeer, Buffer.from('go'))
  await waitFor('both', () => calls.length === 3)
  expect(calls).toEqual(['first', 'next', 'next'])
})

test('a descriptor that cannot be watched is an error', () => {
  expect(() => poller.add(999_999, () => {})).toThrow(expect.objectContaining({ code: 'EBADF' }))
})

test('dispose is final, and may come twice', async () => {
  const [ours, peer] = pair()
  let calls = 0
  poller.add(ours, () => {
    calls++
    poller[Symbol.dispose]()
    poller[Symbol.dispose]()
  })
  sendPacket(peer, Buffer.from('x'))
  await waitFor('the poller is closed', () => openDescriptors() === descriptorsBefore + 2)
  expect(calls).toBe(1)
})

const module = (path: string) =>
  JSON.stringify(fileURLToPath(new URL(`../../../src/${path}`, import.meta.url)))
const setUp = `
  import { closeSync } from 'node:fs'
  import { Poller } from ${module('linux/poller.ts')}
  import { acceptConnection, connectSeqpacket, listenSeqpacket } from ${module('linux/unix.ts')}
  const path = process.argv[1]
  const poller = new Poller()
`

/** A process of its own, which ends by itself or not at all. */
const inProcess = (code: string) =>
  tryRun(process.execPath, ['--input-type=module', '-e', setUp + code, join(dir, 'socket')], {
    timeoutMs: 20_000,
  })

test('process.exit() ends a process whose poller waits', async () => {
  expect(await inProcess('setTimeout(() => process.exit(3), 50)')).toMatchObject({ code: 3 })
})

test('a disposed poller does not keep the process alive', async () => {
  expect(await inProcess('poller[Symbol.dispose]()')).toMatchObject({ code: 0, stderr: '' })
})

test('a handler that throws is heard of, and the loop goes on', async () => {
  const { code, stdout } = await inProcess(`
    process.on('uncaughtException', (err) => console.log(err.message))
    const server = listenSeqpacket(path)
    let calls = 0
    poller.add(server, () => {
      closeSync(acceptConnection(server))
      if (++calls === 2) poller[Symbol.dispose]()
      throw new Error('call ' + calls)
    })
    connectSeqpacket(path, 1000)
    connectSeqpacket(path, 1000)
  `)
  expect({ code, stdout }).toEqual({ code: 0, stdout: 'call 1\ncall 2\n' })
})
