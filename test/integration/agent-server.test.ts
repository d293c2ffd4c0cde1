// SPDX-License-Identifier: Apache-2.0
/** The agent's socket against clients that the plugin is not. Whatever they do: it serves others, and keeps no descriptor. */
import {
  chmodSync,
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { AgentServer, type AgentServerOptions } from '../../src/agent-api/server.ts'
import { hostNetnsIdentity, type NetnsIdentity } from '../../src/linux/netns.ts'
import { Poller } from '../../src/linux/poller.ts'
import { connectSeqpacket, receivePacket, sendPacket, setReceiveTimeout } from '../../src/linux/unix.ts'
import { createLogger, type Entry } from '../../src/log.ts'
import type { Decision } from '../../src/policy/pod.ts'
import { run, waitFor } from '../support/exec.ts'

const decision: Decision = { enroll: false, reason: 'nothing asks for it', warnings: [] }
const pod = { namespace: 'shop', name: 'cart', uid: 'b4a7f1de' }
const request = (op: string, more: object = {}) => ({
  ...{ version: 1, op, containerId: 'c0ffee', ifname: 'eth0', pod },
  ...more,
})
const decided = { version: 1, decision }
const numRuns = Math.min(3000, Number(process.env['FUZZ_RUNS'] ?? 300))

let dir: string
let path: string
let poller: Poller
let open: Set<number>
let log: Entry[]
let before: number

const openDescriptors = () => readdirSync('/proc/self/fd').length

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), `ambt${process.pid}-server`))
  path = join(dir, 'run/agent.sock')
  before = openDescriptors()
  poller = new Poller()
  open = new Set()
  log = []
})
afterEach(async () => {
  for (const fd of open) closeSync(fd)
  poller[Symbol.dispose]()
  rmSync(dir, { recursive: true })
  await waitFor('all descriptors are closed', () => openDescriptors() <= before)
})

function listen(options: Partial<AgentServerOptions> = {}): AgentServer {
  const sink = { write: (entry: Entry) => void log.push(entry), flush: async () => undefined }
  return AgentServer.listen({
    ...{ path, poller, log: createLogger('debug', sink) },
    decide: async () => decision,
    activate: async (_, netns) => netns[Symbol.dispose](),
    ...options,
  })
}

/** Blocking for a millisecond: the server is in this process. */
function connect(): number {
  const fd = connectSeqpacket(path, 2_000)
  setReceiveTimeout(fd, 1)
  open.add(fd)
  return fd
}

function close(fd: number): void {
  open.delete(fd)
  closeSync(fd)
}

function send(client: number, document: unknown, fd?: number): void {
  const bytes = document instanceof Uint8Array ? Buffer.from(document) : Buffer.from(JSON.stringify(document))
  sendPacket(client, bytes, fd)
}

/** Undefined: the server closed the connection. */
async function answerTo(client: number): Promise<unknown> {
  const packet = await waitFor('an answer', () => receivePacket(client, 65_536), { everyMs: 1 })
  close(client)
  return packet.bytes.length === 0 ? undefined : JSON.parse(packet.bytes.toString())
}

async function ask(document: unknown, fd?: number): Promise<unknown> {
  const client = connect()
  send(client, document, fd)
  return answerTo(client)
}

const errorOf = (message: string) => ({ version: 1, error: { message, remedy: expect.stringMatching(/./) } })

test('handlers get what was asked, and the netns that came with it', async () => {
  const asked: unknown[] = []
  const seen: NetnsIdentity[] = []
  await using _ = listen({
    decide: async (each) => {
      asked.push(each)
      return decision
    },
    activate: async (each, received) => {
      using netns = received
      asked.push(each)
      seen.push(netns.identity)
    },
  })
  const fd = openSync('/proc/self/ns/net', 'r')
  open.add(fd)
  expect(await ask(request('decide', { more: 1, pod: { ...pod, more: 1 } }))).toEqual(decided)
  expect(await ask(request('activate'), fd)).toEqual({ version: 1, activated: true })
  const wanted = { containerId: 'c0ffee', ifname: 'eth0', pod }
  expect(asked).toEqual([wanted, wanted])
  expect(seen).toEqual([hostNetnsIdentity()])
})

test('nobody waits for another', async () => {
  const { promise, resolve } = Promise.withResolvers<void>()
  await using server = listen({
    decide: async ({ containerId }) => {
      if (containerId === 'slow') await promise
      return decision
    },
  })
  const slow = connect()
  send(slow, request('decide', { containerId: 'slow' }))
  expect(await ask(request('decide'))).toEqual(decided)
  expect(server.connections).toBe(1)
  resolve()
  expect(await answerTo(slow)).toEqual(decided)
})

test('a client that leaves cancels nothing', async () => {
  const { promise, resolve } = Promise.withResolvers<void>()
  let done = 0
  await using server = listen({
    activate: async (_, netns) => {
      await promise
      netns[Symbol.dispose]()
      done++
    },
  })
  const client = connect()
  const fd = openSync('/proc/self/ns/net', 'r')
  send(client, request('activate'), fd)
  closeSync(fd)
  close(client)
  await waitFor('the request is read', () => server.connections === 1)
  resolve()
  await waitFor('the connection ends', () => server.connections === 0)
  expect(done).toBe(1)
  expect(log).toMatchObject([{ level: 'warn', message: expect.stringContaining('too late') }])
})

test('who says nothing is sent away, and others are served meanwhile', async () => {
  await using server = listen({ silenceMs: 200 })
  const clients = Array.from({ length: 5 }, connect)
  expect(await ask(request('decide'))).toEqual(decided)
  for (const client of clients) expect(await answerTo(client)).toBeUndefined()
  expect(server.connections).toBe(0)
})

describe('a request that is none is answered with what is wrong:', () => {
  const wrong = 'the request is not understood'
  const name = (text: string) => request('decide', { pod: { ...pod, name: text } })

  test.for([
    ['no JSON', Buffer.from('GET / HTTP/1.1\r\n'), `${wrong}: it is not JSON`],
    ['no UTF-8', Buffer.from([0xff, 0xfe, 0x00]), `${wrong}: it is not JSON`],
    ['no object', [], `${wrong}: it must be object`],
    ['nothing', null, `${wrong}: it must be object`],
    ['no fields', { version: 1 }, `${wrong}: it must have required property 'op'`],
    ['another version', { version: 2, op: 7 }, 'the plugin speaks version 2, this agent 1'],
    ['a version that is none', { ...request('decide'), version: '1' }, `${wrong}: version must be integer`],
    ['an unknown op', request('destroy'), `${wrong}: op must be equal to one of the allowed values`],
    ['a path as a name', name('../../x'), `${wrong}: pod.name must match pattern "^[a-z0-9.\\-]{1,253}$"`],
    [
      'a name that is too long',
      name('x'.repeat(254)),
      `${wrong}: pod.name must match pattern "^[a-z0-9.\\-]{1,253}$"`,
    ],
    [
      'more than a packet may hold',
      Buffer.alloc(70_000, 'x'),
      `${wrong}: it is larger than 65536 bytes, or has too many descriptors`,
    ],
    ['deep nesting', Buffer.from('['.repeat(60_000)), `${wrong}: it is not JSON`],
    ['activate without a descriptor', request('activate'), `${wrong}: activate came with 0 descriptors`],
  ] as const)('%s', async ([, document, message]) => {
    await using _ = listen({ decide: () => expect.fail('asked'), activate: () => expect.fail('asked') })
    expect(await ask(document)).toEqual(errorOf(message))
  })

  test.for([
    ['decide', '/proc/self/ns/net', `${wrong}: decide came with 1 descriptors`],
    ['activate', '/dev/null', 'the descriptor for pod shop/cart is not a network namespace: EINVAL'],
    ['activate', '/proc/self/ns/uts', 'the descriptor for pod shop/cart is not a network namespace: EINVAL'],
    ['activate', '/', 'the descriptor for pod shop/cart is not a network namespace: EINVAL'],
  ] as const)('%s with a descriptor of %s', async ([op, file, message]) => {
    await using _ = listen({ decide: () => expect.fail('asked'), activate: () => expect.fail('asked') })
    const fd = openSync(file, 'r')
    open.add(fd)
    const count = openDescriptors()
    expect(await ask(request(op), fd)).toEqual(errorOf(message))
    expect(openDescriptors()).toBe(count)
  })

  test.for([
    [2, `${wrong}: activate came with 2 descriptors`],
    [200, `${wrong}: it is larger than 65536 bytes, or has too many descriptors`],
  ] as const)('%i descriptors', async ([count, message]) => {
    await using _ = listen({ activate: () => expect.fail('asked') })
    const fds = `[(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0] * ${count}))]`
    const answer = await python(`s.sendmsg([sys.argv[2].encode()], ${fds}); print(s.recv(70000).decode())`)
    expect(JSON.parse(answer)).toEqual(errorOf(message))
  })

  test('a descriptor in an empty packet', async () => {
    await using server = listen()
    const fds = "[(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0]))]"
    await python(`s.sendmsg([b''], ${fds}); s.recv(70000)`)
    expect(server.connections).toBe(0)
  })
})

/** `s` is connected; sys.argv[2] is a request to activate. `first`: runs before that. */
function python(statements: string, first = ''): Promise<string> {
  const code = [
    'import array, os, socket, sys',
    first,
    's = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)',
    's.connect(sys.argv[1])',
    statements,
  ]
  return run('python3', ['-c', code.join('\n'), path, JSON.stringify(request('activate'))])
}

test(`${numRuns} generated packets`, { timeout: 60_000 + 20 * numRuns }, async () => {
  await using server = listen()
  const field = fc.oneof(fc.string(), fc.anything(), fc.constantFrom(1, 'decide', 'activate', pod))
  const documents = fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 70_000 }),
    fc.json().map((text) => new TextEncoder().encode(text)),
    fc
      .record(
        {
          version: fc.constantFrom(1, 1, 1, 0, null),
          op: field,
          containerId: field,
          ifname: field,
          pod: field,
        },
        { requiredKeys: [] },
      )
      .map((document) => new TextEncoder().encode(JSON.stringify(document, plain))),
    fc.constant(new TextEncoder().encode(JSON.stringify(request('decide')))),
  )
  const count = openDescriptors()
  let understood = 0
  await fc.assert(
    fc.asyncProperty(documents, async (bytes) => {
      const answer = await ask(bytes)
      if (JSON.stringify(answer) === JSON.stringify(decided)) understood++
      else expect(answer).toEqual(errorOf(expect.any(String)))
    }),
    { numRuns },
  )
  expect(understood).toBeGreaterThan(0)
  expect(server.connections).toBe(0)
  expect(openDescriptors()).toBe(count)
})

function plain(_: string, value: unknown): unknown {
  return typeof value === 'bigint' ? String(value) : value
}

test('thousands of silent connections keep nobody out', { timeout: 60_000 }, async () => {
  await using server = listen({ maxConnections: 50 })
  for (let i = 0; i < 3_000; i++) {
    connect()
    if (i % 100 !== 0) continue
    expect(await ask(request('decide'))).toEqual(decided)
    expect(server.connections).toBeLessThanOrEqual(51)
  }
  expect(await ask(request('decide'))).toEqual(decided)
})

test('connect and leave, thousands of times', { timeout: 60_000 }, async () => {
  await using server = listen()
  for (let i = 0; i < 3_000; i++) {
    const client = connect()
    if (i % 3 === 0) send(client, request('decide'))
    close(client)
    if (i % 500 === 0) expect(await ask(request('decide'))).toEqual(decided)
  }
  await waitFor('all connections end', () => server.connections === 0)
})

test('more requests than can be served at once wait for their turn', async () => {
  const ends: (() => void)[] = []
  await using server = listen({
    maxConnections: 2,
    decide: () => new Promise((resolve) => ends.push(() => resolve(decision))),
  })
  const clients = Array.from({ length: 5 }, () => {
    const client = connect()
    send(client, request('decide'))
    return client
  })
  for (const client of clients) {
    const end = await waitFor('a request is served', () => ends.shift())
    expect(server.connections).toBeLessThanOrEqual(2)
    end()
    expect(await answerTo(client)).toEqual(decided)
  }
})

test('without descriptors left it waits, and goes on', { timeout: 60_000 }, async () => {
  await using server = listen({ silenceMs: 300 })
  const limit = async (count: number) => {
    await run('prlimit', ['--pid', String(process.pid), `--nofile=${count}:`])
  }
  const old = Number(
    (await run('prlimit', ['--pid', String(process.pid), '--nofile', '-o', 'SOFT', '--noheadings'])).trim(),
  )
  const others = python(
    `t = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(150)]
[each.connect(sys.argv[1]) for each in t]
[each.recv(1) for each in t]`,
  )
  await limit(openDescriptors() + 40)
  await others
  await waitFor('the server is alone', () => server.connections === 0)
  await limit(old)
  expect(log.filter(({ level }) => level === 'error')).not.toEqual([])
  expect(await ask(request('decide'))).toEqual(decided)
})

test('a process that is not root is refused, even if it can reach the socket', async () => {
  await using _ = listen({ decide: () => expect.fail('asked') })
  for (const each of [dir, join(dir, 'run')]) chmodSync(each, 0o755)
  chmodSync(path, 0o666)
  const client = `
try: s.send(sys.argv[2].replace('activate', 'decide').encode()); print(len(s.recv(70000)))
except OSError: print(0)`
  expect(await python(client, 'os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)')).toBe(
    '0\n',
  )
  expect(log).toMatchObject([{ level: 'warn', uid: 65534 }])
})

test('what a handler throws is told and logged', async () => {
  await using _ = listen({
    decide: () => {
      throw new Error('out of order')
    },
  })
  expect(await ask(request('decide'))).toEqual(errorOf('the agent failed: out of order'))
  expect(log).toMatchObject([{ level: 'warn', message: 'request failed', pod: 'shop/cart', op: 'decide' }])
})

test('texts that are too long are cut', async () => {
  const warnings = ['x'.repeat(300_000)]
  await using _ = listen({ decide: async () => ({ ...decision, warnings }) })
  expect(await ask(request('decide'))).toMatchObject({
    decision: { warnings: [expect.stringMatching(/^x{1997}\.\.\.$/)] },
  })
})

test('an answer that fits into no packet is an error', async () => {
  await using _ = listen({ decide: async () => ({ ...decision, reason: 'x'.repeat(70_000) }) })
  expect(await ask(request('decide'))).toEqual(errorOf(expect.stringContaining('at most 65536 are possible')))
})

describe('stopping', () => {
  test('waits for requests, and serves nobody new', async () => {
    const { promise, resolve } = Promise.withResolvers<Decision>()
    const server = listen({ decide: () => promise })
    const [client, quiet] = [connect(), connect()]
    send(client, request('decide'))
    await waitFor('both are accepted', () => server.connections === 2)
    const stopped = server.stop()
    expect(server.stop()).toBe(stopped)
    expect(connect).toThrow(expect.objectContaining({ code: 'ENOENT' }))
    expect(await answerTo(quiet)).toBeUndefined()
    expect(server.connections).toBe(1)
    resolve(decision)
    await stopped
    expect(await answerTo(client)).toEqual(decided)
  })

  test('does not wait for ever', async () => {
    const { promise, resolve } = Promise.withResolvers<Decision>()
    const server = listen({ decide: () => promise, stopMs: 50 })
    const client = connect()
    send(client, request('decide'))
    await waitFor('it is accepted', () => server.connections === 1)
    await server.stop()
    expect(await answerTo(client)).toBeUndefined()
    resolve(decision)
  })

  test('while it is full', async () => {
    const ends: (() => void)[] = []
    const server = listen({
      maxConnections: 1,
      decide: () => new Promise((resolve) => ends.push(() => resolve(decision))),
    })
    const [client, waiting] = [connect(), connect()]
    for (const each of [client, waiting]) send(each, request('decide'))
    const end = await waitFor('one is served', () => ends.shift())
    const stopped = server.stop()
    end()
    await stopped
    expect(await answerTo(client)).toEqual(decided)
    expect(await answerTo(waiting)).toBeUndefined()
    expect(ends).toEqual([])
  })

  test('leaves the socket of a newer server alone', async () => {
    const old = listen()
    await using _ = listen()
    await old.stop()
    expect(await ask(request('decide'))).toEqual(decided)
  })
})

describe('the directory', () => {
  test('is made for root alone, and so is the socket', async () => {
    await using _ = listen()
    expect([join(dir, 'run'), path].map((each) => statSync(each).mode & 0o777)).toEqual([0o700, 0o600])
  })

  test('of others is refused', () => {
    mkdirSync(join(dir, 'run'))
    chmodSync(join(dir, 'run'), 0o777)
    expect(() => listen()).toThrow(`others than root can write to ${dir}/run`)
  })
})
