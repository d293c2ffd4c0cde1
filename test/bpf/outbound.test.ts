// SPDX-License-Identifier: Apache-2.0
/** Outbound capture: what the app dials and is shown, and what its proxy is told. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { waitFor } from '../support/exec.ts'
import { endpoint, families, ipOf, Mesh, portOf, watch } from '../support/mesh.ts'
import type { LanHost } from '../support/netns.ts'
import { type ConnectResult, connect, SockClient } from '../support/sock.ts'
import type { ProxyConnection, ZtunnelStandin } from '../support/standin.ts'

const secondary = { ipv4: '10.250.0.101', ipv6: 'fd10:250::101' } as const
const late = { ipv4: '10.250.0.102', ipv6: 'fd10:250::102' } as const
const sockopts = { ipv4: 'SOL_IP', ipv6: 'SOL_IPV6' } as const
const ways = [
  { way: 'a blocking socket', more: [] },
  { way: 'a non-blocking socket', more: ['--nonblock'] },
  { way: 'io_uring', more: ['--io-uring'] },
  { way: 'TCP Fast Open', more: ['--fastopen'] },
  { way: 'a socket bound to its interface', more: ['--device', 'eth0'] },
]

let mesh: Mesh
let pod: LanHost
let remote: LanHost
let standin: ZtunnelStandin

beforeAll(async () => {
  mesh = await Mesh.create({ hosts: 4 })
  pod = mesh.host(0)
  remote = mesh.host(1)
  await addAddresses(pod, secondary)
  standin = await mesh.startStandin()
  await mesh.enroll(pod, { assigned: [`${pod.ipv4}/24`, `${pod.ipv6}/64`] })
  await addAddresses(pod, late)
  await mesh.serve(pod, 'app', [8080])
  await mesh.serve(remote, 'remote', [8080, 8081])
})
afterAll(() => mesh?.dispose())

/** Each in a subnet of its own, and on IPv6 not for the kernel to choose. */
async function addAddresses(host: LanHost, { ipv4, ipv6 }: typeof secondary | typeof late): Promise<void> {
  await host.netns.ip([`addr add ${ipv4}/32 dev eth0`, `addr add ${ipv6}/128 dev eth0 preferred_lft 0 nodad`])
}

/** Connect, and wait for what the proxy says of it. */
async function dialCaptured(
  from: LanHost,
  [to, port]: readonly [string, number],
  options: readonly string[] = [],
): Promise<{ result: ConnectResult; seen: ProxyConnection }> {
  const connections = watch(standin)
  const result = await connect(mesh.at(from), to, port, options)
  const find = (): ProxyConnection | undefined => connections().find((each) => each.peer === result.local)
  return { result, seen: await waitFor('the connection at the proxy', find) }
}

describe.for(families)('over $name', ({ key, options }) => {
  test.for(ways)('$way reaches what it dialled, through the proxy', async ({ more }) => {
    const wanted = endpoint(remote[key], 8080)
    const { result, seen } = await dialCaptured(pod, [remote[key], 8080], [...options, ...more])
    expect(result).toMatchObject({ ok: true, peer: wanted, reply: { server: 'remote', local: wanted } })
    expect(ipOf(result.local)).toBe(pod[key])
    expect(seen).toMatchObject({ netns: pod.netns.path, listener: 15001, original: wanted, error: '' })
    expect(seen).toMatchObject({ via_sockopt: sockopts[key], dialled: wanted, source: null })
    expect(ipOf(seen.local)).toBe(pod[key])
    expect(ipOf(result.reply?.peer)).toBe(pod[key])
    expect(result.reply?.peer).not.toBe(result.local)
  })

  test('data goes both ways, with half-close', async () => {
    const { result } = await dialCaptured(pod, [remote[key], 8080], [...options, '--send', 'ping'])
    expect(result).toMatchObject({ ok: true, echo: 'ping' })
  })

  test('each destination has its own port at the pod address, and keeps it', async () => {
    const via = async (port: number): Promise<number> =>
      portOf((await dialCaptured(pod, [remote[key], port], options)).seen.local)
    const first = await via(8080)
    expect(await via(8080)).toBe(first)
    expect(await via(8081)).not.toBe(first)
  })

  test('a refusal by the destination ends the connection', async () => {
    const { result, seen } = await dialCaptured(pod, [remote[key], 9], options)
    expect(seen).toMatchObject({ original: endpoint(remote[key], 9), error: 'connect: ECONNREFUSED' })
    expect(result).toMatchObject({ ok: false, at: 'read' })
  })

  const loopback = key === 'ipv4' ? '127.0.0.1' : '::1'
  test.for([
    { what: 'the primary address', source: () => pod[key] },
    { what: 'a secondary address', source: () => secondary[key] },
    { what: 'an address that came after ADD', source: () => late[key] },
    { what: 'loopback', source: () => loopback },
  ])('a socket bound to $what keeps it, and the proxy sees it', async ({ source }) => {
    const bind = ['--bind', endpoint(source(), 0)]
    const { result, seen } = await dialCaptured(pod, [remote[key], 8080], [...options, ...bind])
    expect(result).toMatchObject({ ok: true, peer: endpoint(remote[key], 8080) })
    expect(ipOf(result.local)).toBe(source())
    expect(seen).toMatchObject({ original: endpoint(remote[key], 8080), peer: result.local })
  })

  test('a socket that was disconnected connects again', async () => {
    const connections = watch(standin)
    const result = await connect(mesh.at(pod), remote[key], 8080, [...options, '--disconnect'])
    const wanted = endpoint(remote[key], 8080)
    expect(result).toMatchObject({ ok: true, peer: wanted, reply: { server: 'remote' } })
    await waitFor('both connections', () => connections().length >= 2)
    expect(connections().map((each) => each.original)).toEqual([wanted, wanted])
  })

  test('one local port serves two destinations at once', async () => {
    const bound = [...options, '--reuseaddr', '--bind', endpoint(pod[key], 40000)]
    const connections = watch(standin)
    await using first = await SockClient.start(mesh.at(pod), remote[key], 8080, [...bound, '--hold', '300'])
    expect(await first.result()).toMatchObject({ ok: true, peer: endpoint(remote[key], 8080) })
    const second = await connect(mesh.at(pod), remote[key], 8081, bound)
    expect(second).toMatchObject({ ok: true, peer: endpoint(remote[key], 8081) })
    expect(second.local).toBe(endpoint(pod[key], 40000))
    expect(await first.isAliveAfterHold()).toBe(true)
    const originals = connections().map((each) => each.original)
    expect(originals).toEqual([endpoint(remote[key], 8080), endpoint(remote[key], 8081)])
  })

  test('an app that listens on the port of a redirect gets nothing of it', async () => {
    const { seen } = await dialCaptured(pod, [remote[key], 8080], options)
    const via = portOf(seen.local)
    const anywhere = key === 'ipv4' ? '0.0.0.0' : '::'
    for (const bind of [anywhere, endpoint(pod[key], 0)]) {
      await using thief = await mesh.serve(pod, 'thief', [via], ['--bind', bind])
      const { result } = await dialCaptured(pod, [remote[key], 8080], options)
      expect(result).toMatchObject({ ok: true, reply: { server: 'remote' } })
      expect(thief.connections()).toEqual([])
    }
  })

  test('an app that listens on such a port is reached by its own pod', async () => {
    const { seen } = await dialCaptured(pod, [remote[key], 8080], options)
    const via = portOf(seen.local)
    await using _app = await mesh.serve(pod, 'app', [via])
    const itself = await connect(mesh.at(pod), pod[key], via, options)
    expect(itself).toMatchObject({ ok: true, reply: { server: 'app' } })
  })

  test('what is in the pod is reached directly: its addresses, loopback, and the unspecified address', async () => {
    const own = { ipv4: ['127.0.0.1', '127.0.0.53', '0.0.0.0'], ipv6: ['::1', '::'] }[key]
    const connections = watch(standin)
    for (const address of [pod[key], secondary[key], ...own]) {
      const result = await connect(mesh.at(pod), address, 8080, options)
      expect(result, address).toMatchObject({ ok: true, reply: { server: 'app', peer: result.local } })
    }
    expect(connections()).toEqual([])
  })

  test('a process outside the capture cgroup cannot reach the app at the pod address', async () => {
    const result = await connect({ netns: pod.netns }, pod[key], 8080, options)
    expect(result).toMatchObject({ ok: false, error: 'ECONNREFUSED', at: 'connect' })
  })

  test('an own address that came after ADD is reached through the proxy', async () => {
    const { result, seen } = await dialCaptured(pod, [late[key], 8080], options)
    expect(seen).toMatchObject({ original: endpoint(late[key], 8080), error: '' })
    expect(result).toMatchObject({ ok: true, reply: { server: 'app' } })
  })

  test('a pod that is not enrolled is left alone', async () => {
    const connections = watch(standin)
    const result = await connect(mesh.at(mesh.host(2)), remote[key], 8080, options)
    expect(result).toMatchObject({ ok: true, peer: endpoint(remote[key], 8080) })
    expect(result.reply).toMatchObject({ server: 'remote', peer: result.local })
    expect(connections()).toEqual([])
  })
})

test('a later IPv4 address in the subnet of the first is refused: the kernel gives it the source of the first', async () => {
  await pod.netns.ip(['addr add 10.250.0.103/24 dev eth0'])
  const { result, seen } = await dialCaptured(pod, ['10.250.0.103', 8080])
  expect(seen).toMatchObject({ original: '10.250.0.103:8080', error: 'connect: ECONNREFUSED' })
  expect(result).toMatchObject({ ok: false, at: 'read' })
})

test.for(['ipv4', 'ipv6'] as const)(
  'MPTCP over %s is captured; the app is shown the redirected address, which is a limit of the kernel',
  async (key) => {
    const { result, seen } = await dialCaptured(pod, [remote[key], 8080], ['--mptcp'])
    expect(result).toMatchObject({ ok: true, peer: seen.local, reply: { server: 'remote' } })
    expect(seen).toMatchObject({ listener: 15001, original: endpoint(remote[key], 8080), error: '' })
  },
)

describe.for([
  { has: 'IPv4', lacks: 'ipv6', loopback: '::1' },
  { has: 'IPv6', lacks: 'ipv4', loopback: '127.0.0.1' },
] as const)('a pod with an $has address alone', ({ lacks, loopback }) => {
  let single: LanHost

  beforeAll(async () => {
    single = mesh.host(lacks === 'ipv6' ? 2 : 3)
    if (lacks === 'ipv6') await single.netns.sysctl({ 'ipv6.conf.eth0.disable_ipv6': 1 })
    else await single.netns.ip([`addr del ${single.ipv4}/24 dev eth0`])
    await mesh.enroll(single)
  })

  test('dials the other family into its proxy, by loopback', async () => {
    const { result, seen } = await dialCaptured(single, [remote[lacks], 8080])
    expect(seen).toMatchObject({ listener: 15001, original: endpoint(remote[lacks], 8080) })
    expect(seen.error).toBe('connect: ENETUNREACH')
    expect([ipOf(seen.local), ipOf(result.local)]).toEqual([loopback, loopback])
    expect(result).toMatchObject({ ok: false, at: 'read' })
  })

  test('its own app does not get what goes there', async () => {
    const { seen } = await dialCaptured(single, [remote[lacks], 8080])
    await using thief = await mesh.serve(single, 'thief', [portOf(seen.local)])
    await dialCaptured(single, [remote[lacks], 8080])
    expect(thief.connections()).toEqual([])
  })

  test('still reaches itself by loopback, but not from outside the capture cgroup', async () => {
    await using _app = await mesh.serve(single, 'app', [8080])
    const unseen = await connect({ netns: single.netns }, loopback, 8080)
    expect(unseen).toMatchObject({ ok: false, error: 'ECONNREFUSED', at: 'connect' })
    const result = await connect(mesh.at(single), loopback, 8080)
    expect(result).toMatchObject({ ok: true, reply: { server: 'app', peer: result.local } })
  })
})
