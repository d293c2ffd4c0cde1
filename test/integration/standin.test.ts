// SPDX-License-Identifier: Apache-2.0
/** The stand-in for ztunnel and the test client, without a redirector: what they do by themselves in plain network namespaces. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { redirectAsIstio } from '../support/istio-rules.ts'
import { type LanHost, lan, type SmallLan } from '../support/netns.ts'
import { type ConnectResult, connect, queryDns, SockClient, SockServer, sock } from '../support/sock.ts'
import { ZtunnelStandin } from '../support/standin.ts'

let network: SmallLan
let pod: LanHost
let client: LanHost
let app: SockServer
let standin: ZtunnelStandin

beforeAll(async () => {
  network = await lan(2)
  const [first, second] = network.hosts
  if (!first || !second) throw new Error('two hosts expected')
  pod = first
  client = second
  app = await SockServer.start({ netns: pod.netns, ports: [8080], name: 'app' })
  standin = await ZtunnelStandin.start({ name: 'one' })
  await standin.add(pod.netns.path)
})

afterAll(async () => {
  await standin?.stop()
  await app?.stop()
  await network?.dispose()
})

test.each([
  ['IPv4', 'ipv4', []],
  ['IPv6', 'ipv6', []],
  ['IPv4 on an IPv6 socket', 'ipv4', ['--v6-mapped']],
  ['a non-blocking socket', 'ipv4', ['--nonblock']],
  ['MPTCP', 'ipv4', ['--mptcp']],
  ['TCP Fast Open', 'ipv4', ['--fastopen']],
  ['io_uring', 'ipv6', ['--io-uring']],
  ['a socket that was disconnected', 'ipv4', ['--disconnect']],
  ['HTTP', 'ipv4', ['--http']],
  ['a client that waits for the server to speak', 'ipv4', ['--silent']],
  ['a bound device and a mark', 'ipv6', ['--device', 'eth0', '--mark', '1337']],
] as const)('client and server agree about their addresses: %s', async (_, family, options) => {
  const result = await connect({ netns: client.netns }, pod[family], 8080, options)
  const [server, own] = [at(pod[family], 8080), result.local]
  expect(result).toMatchObject({ ok: true, peer: server, reply: { server: 'app', local: server, peer: own } })
  expect(ipOf(own ?? '')).toBe(client[family])
  expect(result.reply?.family).toBe(family === 'ipv4' ? 'v4-mapped' : 'inet6')
})

test('a socket made in another netns connects from there, as another user, with its data echoed', async () => {
  const options = ['--netns', client.netns.path, '--send', 'hello', '--hold', '1']
  const [result, held] = await sock<Partial<ConnectResult>>({}, ['connect', pod.ipv4, '8080', ...options])
  expect(result).toMatchObject({ ok: true, echo: 'hello' })
  expect(result?.local).toContain(client.ipv4)
  expect(held).toMatchObject({ held: 1, alive: true })
  const asUser = await connect({ netns: client.netns }, pod.ipv4, 8080, ['--uid', '1337', '--gid', '1337'])
  expect(asUser.ok).toBe(true)
})

test('a socket can be older than its connection', async () => {
  await using waiting = await SockClient.start({ netns: client.netns }, pod.ipv4, 8080, ['--wait-stdin'])
  waiting.connect()
  expect(await waiting.result()).toMatchObject({ ok: true, peer: at(pod.ipv4, 8080) })
})

test('what the network refuses is reported by errno and step', async () => {
  const where = { netns: client.netns }
  expect(await connect(where, pod.ipv4, 81)).toMatchObject({
    ok: false,
    error: 'ECONNREFUSED',
    at: 'connect',
  })
  expect(await connect(where, pod.ipv4, 81, ['--io-uring'])).toMatchObject({ error: 'ECONNREFUSED' })
  const notOurs = ['--bind', '192.0.2.1']
  expect(await connect(where, pod.ipv4, 8080, notOurs)).toMatchObject({ error: 'EADDRNOTAVAIL', at: 'bind' })
  await expect(connect(where, 'a-name', 80)).rejects.toThrow('misuse: a-name')
})

test('its sockets have the mark and the places of a ztunnel: the pod netns, dual stack', async () => {
  const listeners = (await pod.netns.run('ss', ['-Hltn', '--extended'])).split('\n')
  for (const address of ['127.0.0.1:15053', '[::1]:15053', '*:15008', '*:15006', '*:15001']) {
    const line = listeners.find((each) => each.includes(` ${address} `))
    expect(line, address).toMatch(/fwmark:0x539/)
  }
  const own = await sock<object>({}, ['connect', '127.0.0.1', '15001', '--no-read'])
  expect(own).toMatchObject([{ error: 'ECONNREFUSED' }])
})

test('15008 refuses a CONNECT to another address', async () => {
  expect(await hbone('ipv4', '192.0.2.1:8080')).toMatchObject({ error: '400 IPMismatch', at: 'hbone' })
  const refused = await standin.waitForConnection((each) => each.listener === 15008)
  expect(refused).toMatchObject({ via_sockopt: 'getsockname', dialled: null, error: 'ip mismatch' })
})

test('without an original destination 15001 dials itself once, and 15006 nothing', async () => {
  const where = { netns: client.netns }
  expect(await connect(where, pod.ipv4, 15006)).toMatchObject({ ok: false, at: 'read' })
  await standin.waitForConnection((each) => each.listener === 15006 && each.error === 'illegal port')
  expect(await connect({ netns: pod.netns }, '127.0.0.1', 15001)).toMatchObject({ ok: false, at: 'read' })
  const loop = await standin.waitForConnection((each) => each.listener === 15001)
  expect(loop).toMatchObject({ via_sockopt: 'getsockname', dialled: null, error: 'illegal port' })
})

describe('with the iptables rules of Istio', () => {
  beforeAll(async () => {
    await redirectAsIstio(pod.netns)
  })

  test.each(['ipv4', 'ipv6'] as const)('outbound goes to where the app wanted: %s', async (family) => {
    await using server = await SockServer.start({ netns: client.netns, ports: [9090], name: 'upstream' })
    const result = await connect({ netns: pod.netns }, client[family], 9090, ['--send', 'over and out'])
    const wanted = at(client[family], 9090)
    expect(result).toMatchObject({
      ok: true,
      peer: wanted,
      echo: 'over and out',
      reply: { server: 'upstream' },
    })
    const seen = await standin.waitForConnection((each) => each.original === wanted)
    expect(seen).toMatchObject({
      listener: 15001,
      peer: result.local,
      via_sockopt: family === 'ipv4' ? 'SOL_IP' : 'SOL_IPV6',
      dialled: wanted,
      source: null,
      error: '',
    })
    expect(server.connections()).toHaveLength(1)
  })

  test.each(['ipv4', 'ipv6'] as const)(
    'inbound reaches the app with the client as its peer: %s',
    async (family) => {
      const result = await connect({ netns: client.netns }, pod[family], 8080)
      expect(ipOf(result.reply?.peer)).toBe(client[family])
      const seen = await standin.waitForConnection((each) => each.peer === result.local)
      const wanted = at(pod[family], 8080)
      expect(seen).toMatchObject({
        listener: 15006,
        original: wanted,
        dialled: wanted,
        source: client[family],
      })

      expect(ipOf((await hbone(family, wanted)).reply?.peer)).toBe(client[family])
      const tunnelled = await standin.waitForConnection(
        (each) => each.listener === 15008 && each.dialled === wanted,
      )
      expect(tunnelled).toMatchObject({ local: at(pod[family], 15008), source: client[family], error: '' })
    },
  )

  test('a refusal by the app is seen, and ends the connection', async () => {
    expect(await connect({ netns: client.netns }, pod.ipv4, 81)).toMatchObject({ ok: false, at: 'read' })
    const seen = await standin.waitForConnection((each) => each.original === at(pod.ipv4, 81))
    expect(seen.error).toBe('connect: ECONNREFUSED')
  })

  test.each([
    ['one datagram', []],
    ['connected', ['--connected']],
    ['sendmmsg', ['--mmsg']],
    ['TCP', ['--tcp']],
  ] as const)('DNS is answered by the stand-in: %s', async (_, options) => {
    const resolver = at(client.ipv4, 53)
    const { replies, error } = await queryDns(
      { netns: pod.netns },
      [resolver],
      ['--name', 'a.test', ...options],
    )
    expect(replies).toMatchObject([{ from: resolver, asked: resolver, answer: '192.0.2.53', rcode: 0 }])
    expect(error).toBe('')
    const missing = await queryDns({ netns: pod.netns }, [resolver], ['--name', 'nx.test', ...options])
    expect(missing.replies).toMatchObject([{ answer: null, rcode: 3 }])
    expect(standin.dnsQueries().at(-1)).toMatchObject({ name: 'nx.test', type: 1, netns: pod.netns.path })
  })

  test('5,000 connections at once are relayed, then drained, while a second stand-in takes over', async () => {
    await using server = await SockServer.start({ netns: client.netns, ports: [9091] })
    const crowd = sock<object>(
      { netns: pod.netns },
      ['connect', client.ipv4, '9091', '--count', '5000', '--hold', '1000', '--timeout', '20000'],
      50_000,
    )
    expect(await crowd).toMatchObject([{ count: 5000, ok: 5000, errors: {} }, { alive: 5000 }])
    expect(server.connections()).toHaveLength(5000)

    await using held = await SockClient.start({ netns: pod.netns }, client.ipv4, 9091, ['--hold', '1500'])
    await using successor = await ZtunnelStandin.start({ name: 'two' })
    await successor.add(pod.netns.path)
    await standin.drain()
    expect(await connect({ netns: pod.netns }, client.ipv4, 9091)).toMatchObject({ ok: true })
    expect(successor.connections().map((each) => each.standin)).toEqual(['two'])
    expect(await held.isAliveAfterHold()).toBe(true)
    await standin.daemon.exited
  })
})

test('stalled listeners complete handshakes and accept later; a withdrawn netns has none', async () => {
  await using other = await ZtunnelStandin.start({ mark: false })
  await other.add(client.netns.path)
  await expect(other.add(client.netns.path)).rejects.toThrow('added already')
  await other.stall()
  const where = { netns: client.netns }
  const options = ['--silent', '--timeout', '300']
  expect(await connect(where, client.ipv4, 15006, options)).toMatchObject({ error: 'ETIMEDOUT', at: 'read' })
  expect(other.connections()).toEqual([])
  await other.resume()
  await other.waitForConnection((each) => each.error === 'illegal port')
  await other.del(client.netns.path)
  expect(await connect(where, client.ipv4, 15006)).toMatchObject({ error: 'ECONNREFUSED', at: 'connect' })
})

test('withdrawing a netns ends its connections', async () => {
  await using other = await ZtunnelStandin.start()
  await using _server = await SockServer.start({ netns: client.netns, ports: [8080] })
  await other.add(client.netns.path)
  const options = ['--hbone', at(client.ipv4, 8080), '--hold', '2000']
  await using held = await SockClient.start({ netns: client.netns }, client.ipv4, 15008, options)
  expect(await held.result()).toMatchObject({ ok: true })
  await other.del(client.netns.path)
  expect(await held.isAliveAfterHold()).toBe(false)
})

test('a shared one serves its own netns, and refuses to call itself', async () => {
  const { ipv4, ipv6 } = client
  await using shared = await ZtunnelStandin.start({ netns: client.netns, shared: { ipv4, ipv6 } })
  expect(await connect({ netns: network.router }, ipv4, 15001)).toMatchObject({ ok: false, at: 'read' })
  const [refused] = shared.connections()
  expect(refused).toMatchObject({ netns: 'own', listener: 15001, error: 'self call', dialled: null })
})

test('raw and packet sockets are opened and send', async () => {
  const sent = { opened: true, sent: true, error: '' }
  const report = await sock<object>({ netns: client.netns }, ['raw', pod.ipv4, '8080'])
  expect(report).toEqual([{ raw: sent, packet: sent }])
})

function at(ip: string, port: number): string {
  return ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`
}

function ipOf(endpoint = ''): string {
  return endpoint.replace(/:\d+$/, '').replace(/[[\]]/g, '')
}

/** From the client through the pod's 15008. */
function hbone(family: 'ipv4' | 'ipv6', to: string): Promise<ConnectResult> {
  return connect({ netns: client.netns }, pod[family], 15008, ['--hbone', to])
}
