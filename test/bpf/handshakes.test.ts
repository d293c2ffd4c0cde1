// SPDX-License-Identifier: Apache-2.0
/** The map of handshakes: what is missing, left over or pushed out sends no connection to the wrong place. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { Store } from '../../src/bpf/store.ts'
import { pinPaths } from '../../src/linux/bpffs.ts'
import { waitFor } from '../support/exec.ts'
import { type Enrolled, endpoint, Mesh, portOf, watch } from '../support/mesh.ts'
import type { LanHost } from '../support/netns.ts'
import { type ConnectResult, connect, connectCrowd, type SockServer } from '../support/sock.ts'
import { ZtunnelStandin } from '../support/standin.ts'
import { BackgroundSock, countHandshakes, dropInput } from './load.ts'

/** PENDING_QUOTA and enum flow_kind in bpf/layout.h */
const quota = 8192
const outbound = 1
/** What the stand-in's queue holds (its backlog, and one), and a bit more, which waits for room. */
const [queued, waiting] = [129, 71]
/** Above those that the kernel chooses from, so that none is in TIME-WAIT; no via port is that high. */
const clientPorts = [61001, 61002, 61003] as const
const refused = { ok: false, error: 'ECONNREFUSED', at: 'connect' }
const none = { entries: 0, pending: 0 }
const keys = ['ipv4', 'ipv6'] as const

type Key = (typeof keys)[number]

let mesh: Mesh
let pod: LanHost
let other: LanHost
let far: LanHost
let enrolled: Enrolled
let cookie: bigint
let standin: ZtunnelStandin
/** By family: where the captured connections to far:8080 go. */
let via: Readonly<Record<Key, number>>
/** An app of the pod that listens there. */
let thief: SockServer
let store: Store

beforeAll(async () => {
  mesh = await Mesh.create({ hosts: 3 })
  ;[pod, other, far] = [mesh.host(0), mesh.host(1), mesh.host(2)]
  await mesh.serve(far, 'far', [8080, 8081])
  await mesh.serve(other, 'other', [8080])
  await mesh.enroll(other)
  const others = await mesh.startStandin({ name: 'of the other' })
  enrolled = await mesh.enroll(pod)
  await others.del(pod.netns.path)
  cookie = BigInt((await mesh.statusOf(enrolled))?.netnsCookie ?? 0)
  store = new Store(pinPaths(mesh.bpffs).maps)
  standin = await startOwn()
  via = { ipv4: await findVia('ipv4'), ipv6: await findVia('ipv6') }
  thief = await mesh.serve(pod, 'thief', [via.ipv4, via.ipv6])
})
afterAll(async () => {
  store?.[Symbol.dispose]()
  await standin?.stop()
  await mesh?.dispose()
})
afterEach(() => {
  expect(thief.connections(), 'what got past the proxy').toEqual([])
})

async function startOwn(): Promise<ZtunnelStandin> {
  const own = await ZtunnelStandin.start({ cgroupDir: mesh.proxy.dir, name: 'own' })
  await own.add(pod.netns.path)
  return own
}

async function findVia(key: Key): Promise<number> {
  const connections = watch(standin)
  await connect(mesh.at(pod), far[key], 8080)
  return portOf((await waitFor('the connection', () => connections()[0])).local)
}

/** Connects that are not waited for; each ends when told, or when this is disposed. */
async function begin(
  count: number,
  key: Key = 'ipv4',
  more: readonly string[] = [],
): Promise<BackgroundSock> {
  const args = ['flood', far[key], '8080', '--count', String(count), ...more]
  const flood = await BackgroundSock.start(mesh.at(pod), args)
  await flood.line(0)
  return flood
}

/** Sockets of the pod in this state, as ss names it. */
async function countSockets(state: string): Promise<number> {
  const text = await pod.netns.run('ss', ['-Htn', 'state', state])
  return text.split('\n').length - 1
}

/** Connections that the proxy has not accepted yet, also those that have ended since. */
async function countQueued(): Promise<number> {
  const line = await pod.netns.run('ss', ['-Htln', 'sport', '=', ':15001'])
  return Number(line.split(/\s+/)[1])
}

/** Nothing is queued, and what was is reported; also after a test that failed. */
async function stallWithEmptyQueue(): Promise<void> {
  const connections = watch(standin)
  const left = await countQueued()
  await standin.resume()
  await waitFor('an empty queue', async () => (await countQueued()) === 0)
  await waitFor('what was queued', () => connections().length >= left)
  await standin.stall()
}

/** The queue is full, and what is above that has sent its SYN for nothing. */
async function beginMoreThanFits(key: Key, more: readonly string[] = []): Promise<BackgroundSock> {
  const flood = await begin(queued + waiting, key, more)
  await waitFor('a full queue', async () => (await countQueued()) === queued)
  await waitFor('the rest', async () => (await countSockets('syn-sent')) === waiting)
  return flood
}

function flowOf(key: Key, clientPort: number) {
  return { netns: cookie, client: pod[key], server: pod[key], clientPort, serverPort: via[key] }
}

/** As the kernel would drop them, or an administrator. */
function deleteEntries(): number {
  const flows = store.handshakes.keys().filter(({ netns }) => netns === cookie)
  for (const flow of flows) store.handshakes.delete(flow)
  store.pending.set(cookie, 0n)
  return flows.length
}

function waitForNone(): Promise<unknown> {
  return waitFor('no handshake', async () => (await countHandshakes(mesh, enrolled)).entries === 0)
}

async function expectCaptured(key: Key, port: number, options: readonly string[] = []): Promise<void> {
  const connections = watch(standin)
  const wanted = endpoint(far[key], port)
  const result = await connect(mesh.at(pod), far[key], port, options)
  expect(result).toMatchObject({ ok: true, peer: wanted, reply: { server: 'far', local: wanted } })
  const find = () => connections().find(({ peer }) => peer === result.local)
  const seen = await waitFor('the connection at the proxy', find)
  expect(seen).toMatchObject({ original: wanted, error: '' })
}

describe.for(keys)('while the proxy accepts nothing, over %s', (key) => {
  beforeEach(stallWithEmptyQueue)
  afterAll(() => standin.resume())

  test.for([
    { how: 'the client closes', more: [] },
    { how: 'the client connects to AF_UNSPEC', more: ['--disconnect'] },
  ])('what waits has an entry, until $how', async ({ more }) => {
    await using flood = await beginMoreThanFits(key, more)
    expect(await countHandshakes(mesh, enrolled)).toEqual({ entries: waiting, pending: waiting })
    flood.tell()
    await waitForNone()
    expect(await countHandshakes(mesh, enrolled)).toEqual(none)
  })

  test('an entry that goes missing refuses its connection', async () => {
    const earlier = (await mesh.countersOf(enrolled))['inboundRefusedUnannounced'] ?? 0
    const connections = watch(standin)
    await using _flood = await beginMoreThanFits(key)
    expect(deleteEntries()).toBe(waiting)
    await waitFor('the end of what waited', async () => (await countSockets('syn-sent')) === 0)
    const { inboundRefusedUnannounced } = await mesh.countersOf(enrolled)
    expect(inboundRefusedUnannounced).toBe(earlier + waiting)
    await standin.resume()
    await waitFor('what was queued', () => connections().length === queued)
    expect(new Set(connections().map(({ original }) => original))).toEqual(
      new Set([endpoint(far[key], 8080)]),
    )
  })
})

test.for(keys)(
  'a proxy is told of no destination when the entry goes missing after the SYN, over %s',
  async (key) => {
    const connections = watch(standin)
    const mute = await dropInput(pod.netns, 'iif lo tcp flags & (syn|ack) == syn|ack')
    await using client = await BackgroundSock.start(mesh.at(pod), [
      'connect',
      far[key],
      '8080',
      '--timeout',
      '8000',
    ])
    await waitFor('the SYN at the proxy', async () => (await countSockets('syn-recv')) === 1)
    expect(deleteEntries()).toBe(1)
    await mute[Symbol.asyncDispose]()
    expect(await client.line<ConnectResult>(0)).toMatchObject({ ok: false, at: 'read' })
    expect(connections()).toMatchObject([
      { listener: 15001, original: '127.0.0.1:15001', error: 'illegal port' },
    ])
  },
)

test.for(keys)(
  'an entry that was left over is replaced by the next connect from its port, over %s',
  async (key) => {
    const leftover = { addr: '203.0.113.9', port: 9, owner: cookie, kind: outbound }
    store.handshakes.set(flowOf(key, clientPorts[0]), leftover)
    store.pending.set(cookie, 1n)
    await expectCaptured(key, 8080, ['--bind', endpoint(pod[key], clientPorts[0])])
    expect(await countHandshakes(mesh, enrolled)).toEqual(none)
  },
)

test.for(keys)('a port is used again after connects that were refused, over %s', async (key) => {
  await standin.stop()
  try {
    for (const port of [8080, 8081, 8080, 8081]) {
      const bound = ['--bind', endpoint(pod[key], clientPorts[1])]
      expect(await connect(mesh.at(pod), far[key], port, bound)).toMatchObject(refused)
      expect(await countHandshakes(mesh, enrolled)).toEqual(none)
    }
  } finally {
    standin = await startOwn()
  }
  await expectCaptured(key, 8081, ['--bind', endpoint(pod[key], clientPorts[1])])
  await expectCaptured(key, 8080, ['--bind', endpoint(pod[key], clientPorts[2])])
})

test('a pod at its quota is refused more, and counted', async () => {
  store.pending.set(cookie, BigInt(quota))
  expect(await connect(mesh.at(pod), far.ipv4, 8080)).toMatchObject(refused)
  expect((await mesh.countersOf(enrolled))['outboundRefusedPending']).toBe(1)
  expect(await countHandshakes(mesh, enrolled)).toEqual({ entries: 0, pending: quota })
  store.pending.set(cookie, BigInt(quota - 1))
  await expectCaptured('ipv4', 8080)
  store.pending.set(cookie, 0n)
})

test('tens of thousands of connects that nobody answers do not disturb another pod', async () => {
  await standin.stall()
  {
    await using _first = await begin(15_000, 'ipv4')
    await using _second = await begin(15_000, 'ipv6')
    expect(await countHandshakes(mesh, enrolled)).toEqual({ entries: quota, pending: quota })
    expect((await mesh.countersOf(enrolled))['outboundRefusedPending']).toBeGreaterThan(20_000)
    const all = { count: 1000, ok: 1000, errors: {} }
    const expectFar = ['--expect', `"local":"${endpoint(far.ipv4, 8080)}"`]
    expect(await connectCrowd(mesh.at(other), far.ipv4, 8080, 1000, expectFar)).toEqual(all)
    const expectClient = ['--expect', `"peer":"${far.ipv4}:`]
    expect(await connectCrowd(mesh.at(far), other.ipv4, 8080, 1000, expectClient)).toEqual(all)
  }
  await waitForNone()
  expect(await countHandshakes(mesh, enrolled)).toEqual(none)
  await standin.resume()
  await expectCaptured('ipv4', 8080)
})

/** Of a pod that is not there. */
function strangeFlow(i: number) {
  const [client, server] = ['203.0.113.1', '203.0.113.2']
  return { netns: 0n, client, server, clientPort: i >> 16, serverPort: i & 0xffff }
}

/** Until the map takes no more. Gives the number of entries. */
function fillUp(): number {
  const value = { addr: '203.0.113.9', port: 9, owner: 0n, kind: outbound }
  for (let i = 0; ; i++) {
    try {
      store.handshakes.set(strangeFlow(i), value)
    } catch (err) {
      if ((err as { code?: string }).code === 'E2BIG') return i
      throw err
    }
  }
}

test('when the map is full a connection is refused, until there is room', async () => {
  expect(fillUp()).toBe(64 * quota)
  for (const key of keys) expect(await connect(mesh.at(pod), far[key], 8080)).toMatchObject(refused)
  expect((await mesh.countersOf(enrolled))['announceFailed']).toBe(2)
  expect(Number(store.pending.get(cookie))).toBe(0)
  for (let i = 0; i < 10; i++) store.handshakes.delete(strangeFlow(i))
  for (const key of keys) await expectCaptured(key, 8080)
})
