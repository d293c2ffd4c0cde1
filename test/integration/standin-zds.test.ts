// SPDX-License-Identifier: Apache-2.0
/** The stand-in for ztunnel as a client of ZDS. The server here sends bytes that are written by hand. */
import { closeSync, mkdirSync, openSync, readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { own } from '../support/cleanup.ts'
import { tryRun, waitFor } from '../support/exec.ts'
import { endpoint } from '../support/mesh.ts'
import { type LanHost, lan, Netns, type SmallLan } from '../support/netns.ts'
import { connect, queryDns, SockClient, SockServer, toolPath } from '../support/sock.ts'
import { type StandinOptions, ZtunnelStandin } from '../support/standin.ts'
import { field, RawZdsServer, request, workloadInfo } from '../support/zds-server.ts'

const dir = `${tmpdir()}/ambt${process.pid}-zds`
const removeDir = own({ kind: 'dir', path: dir })
const { add, del, keep, snapshotSent } = request
const listening = ['127.0.0.1:15053', '[::1]:15053', '*:15008', '*:15006', '*:15001'].sort()

let network: SmallLan
let pod: LanHost
let other: LanHost
let app: SockServer
let path: string
let paths = 0
/** Descriptors of their network namespaces. */
let podNetns: number
let otherNetns: number

beforeAll(async () => {
  mkdirSync(dir)
  network = await lan(2)
  ;[pod, other] = network.hosts as [LanHost, LanHost]
  app = await SockServer.start({ netns: pod.netns, ports: [8080] })
  podNetns = openSync(pod.netns.path, 'r')
  otherNetns = openSync(other.netns.path, 'r')
})
afterAll(async () => {
  await app?.stop()
  for (const fd of [podNetns, otherNetns]) if (fd !== undefined) closeSync(fd)
  await network?.dispose()
  await removeDir()
})
beforeEach(() => {
  path = `${dir}/${++paths}.sock`
})

function start(options: StandinOptions = {}): Promise<ZtunnelStandin> {
  return ZtunnelStandin.start({ zds: path, ...options })
}

/** The client is the pod itself: no reply needs to be led back. */
function hbone(): string[] {
  return ['--hbone', endpoint(pod.ipv4, 8080)]
}

/** A connection through the stand-in that is open for two seconds, and then used again. */
async function hold(): Promise<SockClient> {
  const options = [...hbone(), '--hold', '2000']
  const held = await SockClient.start({ netns: pod.netns }, pod.ipv4, 15008, options)
  expect(await held.result()).toMatchObject({ ok: true })
  return held
}

/** Of the stand-in. */
async function listeners({ netns }: { netns: Netns }): Promise<string[]> {
  const lines = (await netns.run('ss', ['-Hltn'])).trim().split('\n')
  return lines
    .flatMap((line) => line.split(/\s+/)[3] ?? [])
    .filter((address) => address !== '*:8080')
    .sort()
}

async function inode({ netns }: LanHost): Promise<number> {
  return Number((await netns.run('stat', ['-L', '-c', '%i', '/proc/self/ns/net'])).trim())
}

test('it serves what it is told of: a workload by its uid, until that is deleted', async () => {
  await using standin = await start()
  // It has begun to try before there is a server.
  using server = RawZdsServer.listen(path)
  const agent = await server.accept()
  expect(await agent.ask(add('uid-a'), [podNetns])).toBe('')
  expect(await standin.waitForAdd('uid-a')).toMatchObject({
    name: 'web-0',
    namespace: 'shop',
    service_account: 'web',
    netns: await inode(pod),
    error: '',
    ready: false,
  })
  expect(await listeners(pod)).toEqual(listening)
  expect(await agent.ask(snapshotSent())).toBe('')
  expect((await standin.waitForSnapshot()).ready).toBe(true)

  expect(await connect({ netns: pod.netns }, pod.ipv4, 15008, hbone())).toMatchObject({ ok: true })
  expect(standin.connections()).toMatchObject([{ workload: 'uid-a', listener: 15008, error: '' }])
  await queryDns({ netns: pod.netns }, ['127.0.0.1:15053'])
  expect(standin.dnsQueries()).toMatchObject([{ workload: 'uid-a' }])

  expect(await agent.ask(del('not known'))).toBe('')
  expect(await agent.ask(del('uid-a'))).toBe('')
  expect(await listeners(pod)).toEqual([])
  expect(standin.zdsEvents().map(({ what, uid }) => [what, uid])).toEqual([
    ['connected', null],
    ['add', 'uid-a'],
    ['snapshot', null],
    ['del', 'not known'],
    ['stopped', 'uid-a'],
    ['del', 'uid-a'],
  ])
})

test('a workload that came over stdin has no uid', async () => {
  await using standin = await start()
  await standin.add(pod.netns.path)
  await connect({ netns: other.netns }, pod.ipv4, 15006)
  expect(await standin.waitForConnection(() => true)).toMatchObject({ workload: null, netns: pod.netns.path })
})

describe('what cannot be read is refused, and ends the connection', () => {
  const group = (depth: number): Buffer =>
    Buffer.concat([Buffer.alloc(depth, 0x3b), Buffer.alloc(depth, 0x3c)])
  const text = (bytes: readonly number[]): Buffer => field(5, field(1, Buffer.from(bytes)))

  test.for([
    { what: 'Add without a netns', bytes: add('a'), fds: 0, why: 'No control message' },
    { what: 'Add with two', bytes: add('a'), fds: 2, why: 'Expected 1 FD, got more' },
    { what: 'Add with three', bytes: add('a'), fds: 3, why: 'Expected 1 FD, got more' },
    { what: 'Del with a netns', bytes: del('a'), fds: 1, why: 'Unexpected control message' },
    { what: 'SnapshotSent with a netns', bytes: snapshotSent(), fds: 1, why: 'Unexpected control message' },
    { what: 'more than 1024 bytes', bytes: keep('a'.repeat(1020)), fds: 0, why: 'truncated message' },
    {
      what: 'an Add of more than 1024 bytes',
      bytes: add('a'.repeat(1020)),
      fds: 1,
      why: 'truncated message',
    },
    { what: 'no payload', bytes: field(4, 'a'), fds: 0, why: 'no payload' },
    { what: 'a length beyond the end', bytes: Buffer.from('2a0a0a', 'hex'), fds: 0, why: 'buffer underflow' },
    { what: 'half a number', bytes: Buffer.from('80', 'hex'), fds: 0, why: 'invalid varint' },
    {
      what: 'a number of more than 64 bits',
      bytes: Buffer.from('20ffffffffffffffffff02', 'hex'),
      fds: 0,
      why: 'invalid varint',
    },
    { what: 'field 0', bytes: Buffer.from('0000', 'hex'), fds: 0, why: 'invalid tag value' },
    { what: 'a wire type that is none', bytes: Buffer.from('2e', 'hex'), fds: 0, why: 'invalid wire type' },
    { what: 'a number for a message', bytes: Buffer.from('2801', 'hex'), fds: 0, why: 'invalid wire type' },
    {
      what: 'a number for a string',
      bytes: field(5, Buffer.from('0801', 'hex')),
      fds: 0,
      why: 'invalid wire type',
    },
    { what: 'the end of a group alone', bytes: Buffer.from('3c', 'hex'), fds: 0, why: 'end group' },
    { what: 'groups without an end', bytes: Buffer.alloc(50, 0x3b), fds: 0, why: 'invalid varint' },
    { what: 'groups too deep', bytes: group(101), fds: 0, why: 'recursion limit' },
    { what: 'an overlong character', bytes: text([0xc0, 0x80]), fds: 0, why: 'UTF-8' },
    { what: 'a surrogate', bytes: text([0xed, 0xa0, 0x80]), fds: 0, why: 'UTF-8' },
    { what: 'a character above U+10FFFF', bytes: text([0xf4, 0x90, 0x80, 0x80]), fds: 0, why: 'UTF-8' },
    { what: 'half a character', bytes: text([0xe2, 0x82]), fds: 0, why: 'UTF-8' },
  ])('$what', async ({ bytes, fds, why }) => {
    await using standin = await start()
    using server = RawZdsServer.listen(path)
    const agent = await server.accept()
    await agent.ask(keep('b'))
    const before = readdirSync(`/proc/${standin.daemon.pid}/fd`).length
    const answer = await agent.ask(bytes, Array(fds).fill(podNetns))
    expect(answer).toMatch(/^failure to read message : /)
    expect(answer).toContain(why)
    expect(await agent.receive()).toHaveLength(0)
    const again = await server.accept()
    expect(await again.ask(snapshotSent())).toBe('')
    expect(readdirSync(`/proc/${standin.daemon.pid}/fd`)).toHaveLength(before)
    expect(standin.zdsEvents().map(({ what }) => what)).toEqual([
      'connected',
      'keep',
      'nack',
      'disconnected',
      'connected',
      'snapshot',
    ])
  })

  test.for([
    { what: 'fields that nobody knows', bytes: [Buffer.from('2001', 'hex'), field(9, 'x'), keep('a')] },
    {
      what: 'fixed numbers and groups, 100 deep',
      bytes: [
        Buffer.from('310102030405060708', 'hex'),
        Buffer.from('3501020304', 'hex'),
        group(100),
        keep('a'),
      ],
    },
    { what: 'the last of several payloads', bytes: [del('b'), keep('a')] },
    { what: 'one payload in two pieces', bytes: [keep('a'), field(5)] },
    { what: 'a tag in five bytes', bytes: [Buffer.from('aa80808000030a0161', 'hex')] },
    { what: 'exactly 1024 bytes', bytes: [keep('a'), field(9, 'x'.repeat(1016))] },
  ])('but $what is read', async ({ bytes }) => {
    await using standin = await start()
    using server = RawZdsServer.listen(path)
    const agent = await server.accept()
    expect(await agent.ask(Buffer.concat(bytes))).toBe('')
    expect(standin.zdsEvents().slice(1)).toMatchObject([{ what: 'keep', uid: 'a' }])
  })
})

test.for([
  { what: 'Keep after SnapshotSent', bytes: [snapshotSent(), keep('a')], why: 'pod keep received after' },
  { what: 'SnapshotSent twice', bytes: [snapshotSent(), snapshotSent()], why: 'snapshot received already' },
  { what: 'Add without workload_info', bytes: [field(1, field(1, 'a'))], why: 'workload_info is required' },
])('$what ends the process with exit code 1', async ({ bytes, why }) => {
  using server = RawZdsServer.listen(path)
  const running = tryRun(await toolPath('ztunnel-standin'), ['--zds', path])
  const agent = await server.accept()
  const answers: string[] = []
  for (const each of bytes) answers.push(await agent.ask(each, each[0] === 0x0a ? [podNetns] : []))
  expect(answers.pop()).toMatch(new RegExp(`^failure to process message : .*${why}`))
  expect(answers.join('')).toBe('')
  const { code, stdout } = await running
  expect(code).toBe(1)
  expect(stdout).toContain('"protocol-error"')
})

test('a connection that ends stops nothing; the next snapshot does, but for what it names', async () => {
  await using standin = await start()
  using server = RawZdsServer.listen(path)
  const first = await server.accept()
  await first.ask(add('kept'), [podNetns])
  await first.ask(add('gone'), [otherNetns])
  await first.ask(snapshotSent())
  expect(standin.isReady()).toBe(true)
  first[Symbol.dispose]()
  await standin.waitForZds(({ what }) => what === 'disconnected')
  expect(standin.isReady()).toBe(false)
  const second = await server.accept()
  expect(await listeners(other)).toEqual(listening)
  await using held = await hold()

  expect(await second.ask(keep('kept'))).toBe('')
  expect(await second.ask(keep('never seen'))).toBe('')
  expect(await second.ask(snapshotSent())).toBe('')
  expect(await listeners(other)).toEqual([])
  expect(await listeners(pod)).toEqual(listening)
  expect(await held.isAliveAfterHold()).toBe(true)
  const stopped = standin.zdsEvents().filter(({ what }) => what === 'stopped')
  expect(stopped.map(({ uid }) => uid)).toEqual(['gone'])
  expect(standin.isReady()).toBe(true)
})

test('a snapshot that breaks off names nothing', async () => {
  await using standin = await start()
  using server = RawZdsServer.listen(path)
  const first = await server.accept()
  await first.ask(add('a'), [podNetns])
  first[Symbol.dispose]()
  const second = await server.accept()
  await second.ask(snapshotSent())
  expect(await listeners(pod)).toEqual([])
  expect(standin.isReady()).toBe(true)
})

test('Add again is nothing new, except in another netns: then the old proxy ends', async () => {
  await using standin = await start()
  using server = RawZdsServer.listen(path)
  const agent = await server.accept()
  await agent.ask(snapshotSent())
  await agent.ask(add('a'), [podNetns])
  await using held = await hold()
  expect(await agent.ask(add('a', workloadInfo('renamed')), [podNetns])).toBe('')
  expect(await listeners(pod)).toEqual(listening)
  expect(standin.zdsEvents().at(-1)).toMatchObject({ what: 'add', name: 'web-0' })
  expect(await held.isAliveAfterHold()).toBe(true)

  await using ended = await hold()
  expect(await agent.ask(add('a', workloadInfo('renamed')), [otherNetns])).toBe('')
  expect(await listeners(pod)).toEqual([])
  expect(await listeners(other)).toEqual(listening)
  expect(standin.zdsEvents().at(-1)).toMatchObject({ what: 'add', name: 'renamed' })
  expect(await ended.isAliveAfterHold()).toBe(false)
})

test('Del before SnapshotSent takes effect with it', async () => {
  await using _standin = await start()
  using server = RawZdsServer.listen(path)
  const agent = await server.accept()
  await agent.ask(add('a'), [podNetns])
  expect(await agent.ask(del('a'))).toBe('')
  expect(await listeners(pod)).toEqual(listening)
  expect(await agent.ask(snapshotSent())).toBe('')
  expect(await listeners(pod)).toEqual([])
})

describe('a proxy that cannot start', () => {
  test('is refused and tried again, and the stand-in is not ready until it runs', async () => {
    await using standin = await start()
    using server = RawZdsServer.listen(path)
    const agent = await server.accept()
    {
      await using _occupant = await SockServer.start({ netns: pod.netns, ports: [15006] })
      expect(await agent.ask(add('a'), [podNetns])).toBe('failure to start proxy : EADDRINUSE')
      expect(await agent.ask(snapshotSent())).toBe('')
      expect(standin.isReady()).toBe(false)
      expect(await listeners(pod)).toEqual(['*:15006'])
    }
    await standin.waitForAdd('a')
    expect(standin.isReady()).toBe(true)
    expect(await listeners(pod)).toEqual(listening)
    expect(agent.hasAnswer()).toBe(false)
  })

  test('can be one whose descriptor is no netns, and is given up by Del', async () => {
    await using standin = await start()
    using server = RawZdsServer.listen(path)
    const agent = await server.accept()
    const file = openSync('/proc/self/ns/uts', 'r')
    await agent.ask(snapshotSent())
    expect(await agent.ask(add('a'), [file])).toBe('failure to start proxy : EINVAL')
    closeSync(file)
    expect(standin.isReady()).toBe(false)
    expect(await agent.ask(del('a'))).toBe('')
    expect(standin.isReady()).toBe(true)
  })

  test('is forgotten with the connection', async () => {
    await using standin = await start({ zdsNack: 'no luck today' })
    using server = RawZdsServer.listen(path)
    const first = await server.accept()
    expect(await first.ask(add('a'), [podNetns])).toBe('failure to start proxy : no luck today')
    expect(await first.ask(snapshotSent())).toBe('')
    expect(standin.isReady()).toBe(false)
    first[Symbol.dispose]()
    const second = await server.accept()
    expect(await second.ask(keep('a'))).toBe('')
    expect(await second.ask(snapshotSent())).toBe('')
    expect(standin.isReady()).toBe(true)
  })
})

test('SIGTERM ends ZDS and the listeners at once, and the process with its last connection', async () => {
  await using standin = await start()
  using server = RawZdsServer.listen(path)
  const agent = await server.accept()
  await agent.ask(add('a'), [podNetns])
  await agent.ask(snapshotSent())
  await using held = await hold()
  const ended = standin.terminate()
  expect(await agent.receive()).toHaveLength(0)
  await waitFor('closed listeners', async () => (await listeners(pod)).length === 0)
  expect(standin.daemon.hasExited()).toBe(false)
  expect(await held.isAliveAfterHold()).toBe(true)
  await ended
})

test('a crash ends the connections, too', async () => {
  await using standin = await start()
  using server = RawZdsServer.listen(path)
  const agent = await server.accept()
  await agent.ask(add('a'), [podNetns])
  await using held = await hold()
  await standin.stop()
  expect(await agent.receive()).toHaveLength(0)
  expect(await held.isAliveAfterHold()).toBe(false)
})

test('acks can come late, or never', async () => {
  await using slow = await start({ zdsDelayAckMs: 2000 })
  {
    using server = RawZdsServer.listen(path)
    const agent = await server.accept()
    agent.send(keep('a'))
    agent.send(keep('b'))
    await slow.waitForZds(({ uid }) => uid === 'a')
    expect(agent.hasAnswer()).toBe(false)
    const acks = [await agent.receive(), await agent.receive()]
    expect(acks.map((ack) => ack.toString('hex'))).toEqual(['0a00', '0a00'])
  }
  await slow.stop()
  await using mute = await start({ zdsMute: true })
  using server = RawZdsServer.listen(path)
  const agent = await server.accept()
  agent.send(add('a'), [podNetns])
  agent.send(snapshotSent())
  await mute.waitForSnapshot()
  expect(await listeners(pod)).toEqual(listening)
  expect(agent.hasAnswer()).toBe(false)
})

test('250 workloads with five listeners each', async () => {
  await using stack = new AsyncDisposableStack()
  await using standin = await start()
  using server = RawZdsServer.listen(path)
  const agent = await server.accept()
  const pods: Netns[] = []
  for (let i = 0; i < 250; i++) pods.push(stack.use(await Netns.create()))
  for (const [i, each] of pods.entries()) {
    const fd = openSync(each.path, 'r')
    expect(await agent.ask(add(`uid-${i}`), [fd])).toBe('')
    closeSync(fd)
  }
  expect(await agent.ask(snapshotSent())).toBe('')
  expect(standin.isReady()).toBe(true)
  for (const netns of pods) expect(await listeners({ netns })).toEqual(listening)
})
