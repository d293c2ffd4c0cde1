// SPDX-License-Identifier: Apache-2.0
/** Connections to a pod, from others and with the help of somebody inside. */
import { afterAll, beforeAll, expect } from 'vitest'
import { endpoint, families } from '../support/mesh.ts'
import type { LanHost, Netns } from '../support/netns.ts'
import { type ConnectResult, connect, SockClient } from '../support/sock.ts'
import { ZtunnelStandin } from '../support/standin.ts'
import {
  dialFar,
  dialIn,
  expectCaptured,
  expectContained,
  expectDirect,
  Field,
  nat,
  proveInbound,
} from './field.ts'
import { vector } from './vector.ts'

let field: Field

beforeAll(async () => {
  field = await Field.create({ hosts: 6 })
  for (const { netns } of field.mesh.hosts) await netns.sysctl({ 'ipv4.tcp_fastopen': 0x607 })
})
afterAll(() => field?.dispose())

const ways = [
  ['connect()', []],
  ['MPTCP', ['--mptcp']],
  ['TCP Fast Open', ['--fastopen']],
  ['SO_MARK 1337', ['--mark', '1337']],
] as const

for (const { name, key, options } of families) {
  for (const [way, more] of ways) {
    vector(`inbound, ${way}, ${name}`, async () => {
      const proof = await proveInbound(field, (host) => ({ to: host[key], options: [...options, ...more] }))
      expect(proof.with).toBe('captured')
      return proof
    })
  }
}

for (const port of [15001, 15006, 15053, 15008, 81, 65535]) {
  vector(`inbound to port ${port}, where an app listens, too`, async () => {
    const dial = async (host: LanHost) => {
      await using app = await field.mesh.serve(host, 'there', [port], ['--reuseport'])
      const inbound = () => connect(field.at(field.far), host.ipv4, port)
      return await field.observe(app, inbound, { from: host })
    }
    const without = expectDirect(await dial(field.twin))
    const held = await dial(field.pod)
    expect(held.captured.map(({ listener }) => listener)).toEqual([port === 15008 ? 15008 : 15006])
    return { without, with: expectContained(held) }
  })
}

vector('inbound to a port where nobody listens', async () => {
  const free = await dialIn(field, field.twin, { to: field.twin.ipv4, port: 82 })
  const held = await dialIn(field, field.pod, { to: field.pod.ipv4, port: 82 })
  return { without: `refused: ${free.value.error}`, with: expectCaptured(held, field.pod.ipv4, 82) }
})

vector('inbound with the probe address of istio-cni as source, probes off', async () => {
  const probe = '169.254.7.127'
  await field.far.netns.ip([`addr add ${probe}/32 dev lo`])
  for (const { netns } of [field.pod, field.twin])
    await netns.ip([`route add ${probe} via ${field.far.ipv4}`])
  const options = ['--bind', probe]
  const proof = await proveInbound(field, ({ ipv4 }) => ({ to: ipv4, options }))
  expect(proof.with).toBe('captured')
  return proof
})

vector('127.x from outside, with route_localnet in the pod', async () => {
  const loopback = '127.9.9.9'
  for (const { netns } of [field.pod, field.twin, field.far])
    await netns.sysctl({ 'ipv4.conf.all.route_localnet': 1 })
  // Far keeps 127.0.0.1 alone for itself.
  await field.far.netns.ip(['route del local 127.0.0.0/8 dev lo table local'])
  return await proveInbound(field, async ({ ipv4 }) => {
    await field.far.netns.ip([`route replace ${loopback} via ${ipv4} src ${field.far.ipv4}`])
    return { to: loopback }
  })
})

vector('DNAT in the pod, of inbound to 127.0.0.1', async () => {
  for (const { netns } of [field.pod, field.twin]) await netns.sysctl({ 'ipv4.conf.all.route_localnet': 1 })
  const rule = 'tcp dport 7070 dnat to 127.0.0.1:8080'
  await using _pod = await nat(field.pod.netns, 'prerouting', rule)
  await using _twin = await nat(field.twin.netns, 'prerouting', rule)
  return await proveInbound(field, ({ ipv4 }) => ({ to: ipv4, port: 7070 }))
})

for (const { name, key } of families.slice(0, 2)) {
  vector(`a socket of the pod opens a way in for a foreign address and port, ${name}`, async () => {
    const source = endpoint(field.far[key], 40_000)
    const options = ['--bind', source, '--reuseaddr']
    const without = expectDirect(await dialIn(field, field.twin, { to: field.twin[key], options }))
    // Never answered: the reply goes to far.
    const hole = ['--transparent', '--bind', source, '--timeout', '5000']
    await using inside = await SockClient.start(field.at(field.pod), field.pod[key], 8080, [
      ...hole,
      '--wait-stdin',
    ])
    inside.connect()
    await field.mesh.status()
    const held = await dialIn(field, field.pod, { to: field.pod[key], options })
    return { without, with: expectContained(held) }
  })
}

vector("an app in the SO_REUSEPORT group of the proxy's listeners", async () => {
  await using fake = await field.mesh.serve(field.pod, 'fake', [15001, 15006], ['--reuseport'])
  for (let i = 0; i < 20; i++) {
    expect(expectContained(await dialIn(field, field.pod, { to: field.pod.ipv4 }))).toBe('captured')
    expect(expectContained(await dialFar(field, field.pod, { to: field.far.ipv4 }))).toBe('captured')
  }
  expect(fake.connections()).toEqual([])
  return { without: 'gets half of them', with: 'gets none' }
})

vector('simultaneous open', async () => {
  const [inner, outer] = [41_000, 41_001]
  const cross = async (host: LanHost) => {
    const options = ['--no-read', '--timeout', '2500', '--bind']
    const out = [...options, endpoint(host.ipv4, inner), '--wait-stdin']
    await using opener = await SockClient.start(field.at(host), field.far.ipv4, outer, out)
    const dial = async () => {
      opener.connect()
      return connect(field.at(field.far), host.ipv4, inner, [...options, endpoint(field.far.ipv4, outer)])
    }
    return await field.observe(field.app, dial, { from: host, connections: 2 })
  }
  {
    await using _twin = await withoutResets(field.twin.netns)
    await using _far = await withoutResets(field.far.netns)
    const free = await cross(field.twin)
    expect([free.value.ok, free.captured]).toEqual([true, []])
  }
  const originals = (await cross(field.pod)).captured.map(({ original }) => original)
  expect(originals.sort()).toEqual([endpoint(field.pod.ipv4, inner), endpoint(field.far.ipv4, outer)].sort())
  return { without: 'connected', with: 'both captured' }
})

/** A SYN that nobody waits for is not answered, so that it can come early. */
async function withoutResets(netns: Netns): Promise<AsyncDisposable> {
  const chain = 'chain c {\ntype filter hook output priority 0\ntcp flags rst drop\n}'
  await netns.run('nft', ['-f', '-'], { input: `table inet quiet {\n${chain}\n}\n` })
  return {
    [Symbol.asyncDispose]: async () => void (await netns.run('nft', ['delete', 'table', 'inet', 'quiet'])),
  }
}

vector('an app that listens on the proxy ports of a pod without a proxy', async () => {
  const host = await enrollWithoutProxy(3)
  await using fake = await field.mesh.serve(host, 'fake', [15001, 15006, 15008])
  const dials = [15001, 15006, 15008, 8080].map((port) => connect(field.at(field.far), host.ipv4, port))
  const results = await Promise.all([...dials, connect(field.at(host), field.far.ipv4, 8080)])
  for (const result of results) expect(result).toMatchObject({ ok: false, error: 'ECONNREFUSED' })
  expect(fake.connections()).toEqual([])
  return { without: 'would be taken for the proxy', with: 'refused: ECONNREFUSED' }
})

vector('while one ztunnel replaces another', async () => {
  const without = expectDirect(await dialIn(field, field.twin, { to: field.twin.ipv4 }))
  const host = await enrollWithoutProxy(4)
  await using app = await field.mesh.serve(host, 'app', [8080])
  await using old = await proxyOf(host, 'old')
  const results: ConnectResult[] = []
  const dialUntil = async (isEnough: () => boolean): Promise<void> => {
    while (!isEnough()) results.push(await connect(field.at(field.far), host.ipv4, 8080))
  }
  await dialUntil(() => results.length >= 5)
  await using successor = await proxyOf(host, 'new')
  await Promise.all([dialUntil(() => successor.connections().length >= 20), old.drain()])
  expect(results.filter(({ ok }) => !ok)).toEqual([])
  const proxied = old.connections().length + successor.connections().length
  expect([app.connections().length, results.length]).toEqual([proxied, proxied])
  return { without, with: 'captured, by one or the other' }
})

async function enrollWithoutProxy(index: number): Promise<LanHost> {
  const host = field.mesh.host(index)
  await field.mesh.enroll(host)
  await field.standin.del(host.netns.path)
  return host
}

async function proxyOf(host: LanHost, name: string): Promise<ZtunnelStandin> {
  const standin = await ZtunnelStandin.start({ cgroupDir: field.mesh.proxy.dir, name })
  await standin.add(host.netns.path)
  return standin
}

vector('a proxy without IPv6 listeners, inbound over IPv6', async () => {
  const without = expectDirect(await dialIn(field, field.twin, { to: field.twin.ipv6 }))
  const host = await enrollWithoutProxy(5)
  await using app = await field.mesh.serve(host, 'app', [8080])
  await using standin = await ZtunnelStandin.start({ cgroupDir: field.mesh.proxy.dir, ipv4Only: true })
  await standin.add(host.netns.path)
  expect(await connect(field.at(field.far), host.ipv4, 8080)).toMatchObject({ ok: true })
  expect(standin.connections()).toHaveLength(1)
  const held = await connect(field.at(field.far), host.ipv6, 8080)
  expect(held).toMatchObject({ ok: false })
  expect(app.connections()).toHaveLength(1)
  return { without, with: `refused: ${held.error}` }
})
