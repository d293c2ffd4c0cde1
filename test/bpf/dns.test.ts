// SPDX-License-Identifier: Apache-2.0
/** DNS capture: which queries the proxy answers, and from whom the answers seem to come. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { waitFor } from '../support/exec.ts'
import { type Enrolled, endpoint, ipOf, Mesh } from '../support/mesh.ts'
import type { LanHost } from '../support/netns.ts'
import { DnsServer } from '../support/resolv.ts'
import { type DnsReply, type DnsResult, queryDns, type Where } from '../support/sock.ts'
import type { DnsQuery, ZtunnelStandin } from '../support/standin.ts'

/** Who answered: the proxy, a server outside the pod, one in the pod. */
const proxyAnswer = '192.0.2.53'
const remoteAnswer = '203.0.113.53'
const localAnswer = '198.51.100.53'

const secondary = { ipv4: '10.250.0.101', ipv6: 'fd10:250::101' } as const

interface Servers {
  readonly name: string
  readonly key: 'ipv4' | 'ipv6'
  /** From 0; the real server has the addresses of 0 to 8. */
  readonly serverAt: (index: number) => string
  /** How many servers one unconnected socket can tell apart. */
  readonly slots: number
}

const v4 = (index: number): string => `10.250.0.${150 + index}`
const families: readonly Servers[] = [
  { name: 'IPv4', key: 'ipv4', serverAt: v4, slots: 8 },
  { name: 'IPv6', key: 'ipv6', serverAt: (index) => `fd10:250::${150 + index}`, slots: 2 },
  { name: 'v4-mapped IPv6', key: 'ipv4', serverAt: (index) => `::ffff:${v4(index)}`, slots: 8 },
]

const ways = [
  { way: 'an unconnected socket', options: [], transport: 'udp' },
  { way: 'a connected socket', options: ['--connected'], transport: 'udp' },
  { way: 'sendmmsg', options: ['--mmsg'], transport: 'udp' },
  { way: 'io_uring', options: ['--io-uring'], transport: 'udp' },
  {
    way: 'a connected socket bound to its interface',
    options: ['--connected', '--device', 'eth0'],
    transport: 'udp',
  },
  { way: 'TCP', options: ['--tcp'], transport: 'tcp' },
  { way: 'TCP bound to its interface', options: ['--tcp', '--device', 'eth0'], transport: 'tcp' },
]

let mesh: Mesh
let pod: LanHost
let other: LanHost
let standin: ZtunnelStandin
let remote: DnsServer
let asks = 0

beforeAll(async () => {
  mesh = await Mesh.create({ hosts: 3 })
  pod = mesh.host(0)
  other = mesh.host(2)
  const [{ netns }, served] = [mesh.host(1), families.slice(0, 2)]
  const addresses = served.flatMap(({ serverAt }) => Array.from({ length: 9 }, (_, index) => serverAt(index)))
  await netns.ip(addresses.map((address) => `addr add ${address} dev eth0`))
  await pod.netns.ip(Object.values(secondary).map((address) => `addr add ${address} dev eth0`))
  standin = await mesh.startStandin()
  remote = await DnsServer.start({ netns }, remoteAnswer, '2001:db8:bad::53')
  await mesh.enroll(pod)
})
afterAll(async () => {
  await remote?.stop()
  await mesh?.dispose()
})
interface Asked extends DnsResult {
  /** What the proxy was asked. */
  readonly queries: readonly DnsQuery[]
  readonly isRemoteAsked: boolean
}

/** Ask for a name of its own. */
async function ask(
  where: Where,
  servers: readonly string[],
  options: readonly string[] = [],
): Promise<Asked> {
  const name = `name${++asks}.test`
  const result = await queryDns(where, servers, ['--name', name, ...options])
  const find = () => standin.dnsQueries().filter((query) => query.name === name)
  // The proxy answers first, and reports then.
  const answered = result.replies.filter(({ answer }) => answer === proxyAnswer).length
  const queries = await waitFor('the report of the proxy', () => find().length >= answered && find())
  return { ...result, queries, isRemoteAsked: remote.queries().includes(name) }
}

/** One question to one server. */
async function askOne(where: Where, server: string, options: readonly string[] = []) {
  const { replies, error, queries } = await ask(where, [server], ['--timeout', '1000', ...options])
  return { answer: replies[0]?.answer, from: ipOf(replies[0]?.from), error, isCaptured: queries.length > 0 }
}

const source = ({ from }: DnsReply): string => ipOf(from)
const server = ({ asked }: DnsReply): string => ipOf(asked)
const canonical = (address: string): string => address.replace('::ffff:', '')

describe.for(families)('over $name', ({ key, serverAt, slots }) => {
  const list = (...indices: readonly number[]): string[] => indices.map(serverAt)
  const bind = () => ['--bind', serverAt(0).startsWith('::ffff:') ? `::ffff:${pod.ipv4}` : pod[key]]

  test('a pod that is not enrolled is answered by the server that it asks', async () => {
    for (const options of [[], ['--connected'], ['--tcp']]) {
      const wanted = { answer: remoteAnswer, from: canonical(serverAt(0)), isCaptured: false }
      expect(await askOne(mesh.at(other), serverAt(0), options)).toMatchObject(wanted)
    }
  })

  test.for(ways)('the proxy answers $way, as the server that was asked', async ({ options, transport }) => {
    const { replies, error, queries, isRemoteAsked } = await ask(mesh.at(pod), list(0), options)
    const wanted = endpoint(canonical(serverAt(0)), 53)
    expect({ error, isRemoteAsked }).toEqual({ error: '', isRemoteAsked: false })
    expect(replies).toMatchObject([{ answer: proxyAnswer, rcode: 0, from: wanted }])
    if (options.includes('--connected')) expect(replies[0]?.peer).toBe(wanted)
    expect(queries).toMatchObject([{ netns: pod.netns.path, transport }])
  })

  test.for(ways)('$way may be bound to the pod address', async ({ options }) => {
    const { replies, error, queries } = await ask(mesh.at(pod), list(0), [...options, ...bind()])
    expect(error).toBe('')
    expect(replies).toMatchObject([{ answer: proxyAnswer, from: endpoint(canonical(serverAt(0)), 53) }])
    expect(queries.map(({ client }) => ipOf(client))).toEqual([pod[key]])
  })

  test('an unconnected socket bound to its interface loses its first query, which does not leave the pod', async () => {
    for (const options of [[], bind()]) {
      const twice = ['--device', 'eth0', '--timeout', '300', ...options]
      const { replies, error, isRemoteAsked } = await ask(mesh.at(pod), list(0, 0), twice)
      expect(replies).toMatchObject([
        { id: 101, answer: proxyAnswer, from: endpoint(canonical(serverAt(0)), 53) },
      ])
      expect({ error, isRemoteAsked }).toEqual({ error: 'ETIMEDOUT', isRemoteAsked: false })
    }
  })

  test('one socket asks several servers again and again, and each reply is from the one that was asked', async () => {
    const order = slots === 2 ? list(0, 1, 0, 1, 1) : list(0, 1, 2, 0, 3, 4, 1, 3)
    for (const options of [[], ['--mmsg']]) {
      const { replies, error, isRemoteAsked } = await ask(mesh.at(pod), order, options)
      expect({ error, isRemoteAsked }).toEqual({ error: '', isRemoteAsked: false })
      expect(replies.map(source)).toEqual(replies.map(server))
    }
  })

  test(`one socket tells ${slots} servers apart; the next one takes the place of the first`, async () => {
    const servers = list(...Array.from({ length: slots + 1 }, (_, index) => index))
    const { replies, error } = await ask(mesh.at(pod), servers)
    expect(error).toBe('')
    const shown = replies.toSorted((a, b) => a.id - b.id).map(source)
    const wanted = servers.map(canonical)
    expect(shown).toEqual([wanted[slots], ...wanted.slice(1)])
  })

  test('a socket bound to the pod address shows every reply as from the server that it asked last', async () => {
    const { replies } = await ask(mesh.at(pod), list(0, 1), bind())
    expect(replies.map(source)).toEqual(list(1, 1).map(canonical))
  })

  test('a socket that was connected to another server earlier shows the ones that it asks', async () => {
    const options = ['--disconnect', '--timeout', '500']
    const { replies, error } = await ask(mesh.at(pod), list(1, 0), options)
    expect(replies.map(source)).toEqual(replies.map(server))
    // Without capture, too, Linux takes nothing but the earlier peer's datagrams on an IPv6 socket.
    expect(error).toBe(key === 'ipv6' ? 'ETIMEDOUT' : '')
  })

  test("the proxy's own queries are not captured", async () => {
    const proxy = { netns: pod.netns, cgroupDir: mesh.proxy.dir }
    for (const options of [[], ['--connected'], ['--tcp']]) {
      const wanted = { answer: remoteAnswer, isCaptured: false }
      expect(await askOne(proxy, serverAt(0), options)).toMatchObject(wanted)
    }
  })

  test('another port is not DNS', async () => {
    const mdns = endpoint(serverAt(0), 5353)
    const { error, queries } = await ask(mesh.at(pod), [mdns], ['--connected', '--timeout', '1000'])
    expect({ error, queries }).toEqual({ error: 'ECONNREFUSED', queries: [] })
  })
})

describe('a destination in the pod itself', () => {
  let local: DnsServer

  beforeAll(async () => {
    local = await DnsServer.start(mesh.at(pod), localAnswer, '2001:db8:10ca::53')
  })
  afterAll(() => local?.stop())

  const own = () => [pod.ipv4, pod.ipv6, secondary.ipv4, secondary.ipv6, '127.0.0.53', '::ffff:127.0.0.53']
  const from = (address: string, answer: string) => ({ answer, from: canonical(address), error: '' })

  test.for([
    { way: 'an unconnected socket', options: [] },
    { way: 'a connected socket', options: ['--connected'] },
  ])('is not captured over UDP ($way)', async ({ options }) => {
    for (const address of [...own(), '127.0.0.1', '::1']) {
      const reply = await askOne(mesh.at(pod), address, options)
      expect(reply, address).toEqual({ ...from(address, localAnswer), isCaptured: false })
    }
  })

  test('is not captured over TCP at 127.0.0.1 and ::1 only', async () => {
    for (const address of ['127.0.0.1', '::1', '::ffff:127.0.0.1']) {
      const reply = await askOne(mesh.at(pod), address, ['--tcp'])
      expect(reply, address).toEqual({ ...from(address, localAnswer), isCaptured: false })
    }
    for (const address of own()) {
      const reply = await askOne(mesh.at(pod), address, ['--tcp'])
      expect(reply, address).toEqual({ ...from(address, proxyAnswer), isCaptured: true })
    }
  })
})

describe('DNS capture', () => {
  const annotated = (value: string) => ({ 'ambient.istio.io/dns-capture': value })
  let enrolled: Enrolled | undefined

  afterEach(async () => {
    if (!enrolled) return
    await mesh.withdraw(enrolled)
    await standin.del(enrolled.netns)
    enrolled = undefined
  })

  test.for([
    { by: 'the annotation', options: { annotations: annotated('false') } },
    { by: 'the network configuration', options: { conf: { dnsCapture: false } } },
  ])('is switched off by $by', async ({ options }) => {
    enrolled = await mesh.enroll(other, options)
    const wanted = { answer: remoteAnswer, from: v4(0), error: '', isCaptured: false }
    for (const more of [[], ['--connected'], ['--tcp']]) {
      expect(await askOne(mesh.at(other), v4(0), more)).toEqual(wanted)
    }
    // Port 53 is then a port like any other.
    const outbound = await standin.waitForConnection((each) => each.netns === other.netns.path)
    expect(outbound).toMatchObject({ listener: 15001, original: endpoint(v4(0), 53) })
  })

  test('is switched on by the annotation where the network configuration says no', async () => {
    enrolled = await mesh.enroll(other, { conf: { dnsCapture: false }, annotations: annotated('true') })
    const wanted = { answer: proxyAnswer, from: v4(0), error: '', isCaptured: true }
    expect(await askOne(mesh.at(other), v4(0))).toEqual(wanted)
  })

  test('ends with the enrollment', async () => {
    enrolled = await mesh.enroll(other)
    expect(await askOne(mesh.at(other), v4(0))).toMatchObject({ answer: proxyAnswer })
    await mesh.withdraw(enrolled)
    expect(await askOne(mesh.at(other), v4(0))).toMatchObject({ answer: remoteAnswer, isCaptured: false })
  })
})

describe('without a DNS listener', () => {
  beforeAll(() => standin.del(pod.netns.path))
  afterAll(() => standin.add(pod.netns.path))

  test.for(families)('no query over $name reaches the server that was asked', async ({ serverAt }) => {
    for (const [options, error] of [
      [['--connected'], 'ECONNREFUSED'],
      [['--tcp'], 'ECONNREFUSED'],
      [['--timeout', '300'], 'ETIMEDOUT'],
    ] as const) {
      const result = await ask(mesh.at(pod), [serverAt(0)], options)
      expect(result).toMatchObject({ replies: [], error, isRemoteAsked: false })
    }
  })
})
