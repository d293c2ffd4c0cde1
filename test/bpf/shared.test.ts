// SPDX-License-Identifier: Apache-2.0
/** Mode ambient-shared: one proxy for the node, in a netns of its own. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { waitFor } from '../support/exec.ts'
import { type Enrolled, endpoint, families, ipOf, Mesh, watch } from '../support/mesh.ts'
import type { LanHost } from '../support/netns.ts'
import { connect } from '../support/sock.ts'
import type { ProxyConnection, ZtunnelStandin } from '../support/standin.ts'

const refused = { ok: false, error: 'ECONNREFUSED', at: 'connect' }
const sockopts = { ipv4: 'SOL_IP', ipv6: 'SOL_IPV6' } as const

let mesh: Mesh
let proxy: LanHost
let pod: LanHost
let peer: LanHost
let stranger: LanHost
let enrolledPeer: Enrolled

beforeAll(async () => {
  mesh = await Mesh.create({ hosts: 5, sharedProxy: 0 })
  proxy = mesh.host(0)
  pod = mesh.host(1)
  peer = mesh.host(2)
  stranger = mesh.host(3)
  await mesh.enroll(pod)
  enrolledPeer = await mesh.enroll(peer)
  await mesh.serve(pod, 'app', [8080])
  await mesh.serve(peer, 'peer', [8080])
  await mesh.serve(stranger, 'stranger', [8080])
})
afterAll(() => mesh?.dispose())

describe('with the proxy', () => {
  let standin: ZtunnelStandin
  let connections: () => ProxyConnection[]

  beforeAll(async () => {
    standin = await mesh.startStandin()
  })
  afterAll(() => standin?.stop())
  beforeEach(() => {
    connections = watch(standin)
  })

  describe.for(families)('over $name', ({ key, options }) => {
    test('outbound goes to its address, and it is told the original destination', async () => {
      const wanted = endpoint(stranger[key], 8080)
      const result = await connect(mesh.at(pod), stranger[key], 8080, options)
      expect(result).toMatchObject({ ok: true, peer: wanted, reply: { server: 'stranger', local: wanted } })
      expect(connections()).toMatchObject([
        {
          netns: 'own',
          listener: 15001,
          local: endpoint(proxy[key], 15001),
          peer: result.local,
          original: wanted,
          via_sockopt: sockopts[key],
          source: pod[key],
          error: '',
        },
      ])
      // What it bound to was taken back: the reply found its way.
      expect(ipOf(result.reply?.peer)).toBe(proxy[key])
    })

    test('an enrolled pod of this node is shown the client', async () => {
      const result = await connect(mesh.at(pod), peer[key], 8080, options)
      expect(result).toMatchObject({ ok: true, peer: endpoint(peer[key], 8080), reply: { server: 'peer' } })
      expect(ipOf(result.reply?.peer)).toBe(pod[key])
      expect(result.reply?.getpeername).toBe(result.reply?.peer)
      expect(connections()).toHaveLength(1)
    })

    test('a client that is not enrolled is refused by the pod: its proxy did not bring it', async () => {
      const notProxy = async (): Promise<number> =>
        (await mesh.countersOf(enrolledPeer))['inboundRefusedNotProxy'] ?? 0
      const before = await notProxy()
      expect(await connect(mesh.at(stranger), peer[key], 8080, options)).toMatchObject(refused)
      expect(await notProxy()).toBe(before + 1)
      expect(connections()).toEqual([])
    })

    test('a stranger who dials the port of the proxy gets nowhere', async () => {
      const result = await connect(mesh.at(stranger), proxy[key], 15001, options)
      expect(result).toMatchObject({ ok: false, at: 'read' })
      await waitFor('the connection at the proxy', () => connections().length > 0)
      expect(connections()).toMatchObject([{ error: 'illegal port', dialled: null }])
    })

    test('the pod reaches itself directly', async () => {
      for (const address of [pod[key], key === 'ipv4' ? '127.0.0.1' : '::1']) {
        const result = await connect(mesh.at(pod), address, 8080, options)
        expect(result).toMatchObject({ ok: true, reply: { server: 'app', peer: result.local } })
      }
      expect(connections()).toEqual([])
    })

    test('data goes both ways, with half-close', async () => {
      const result = await connect(mesh.at(pod), peer[key], 8080, [...options, '--send', 'ping'])
      expect(result).toMatchObject({ ok: true, echo: 'ping' })
    })
  })

  test('with bypass-inbound-capture, everybody reaches the app', async () => {
    const open = mesh.host(4)
    await mesh.enroll(open, { annotations: { 'ambient.istio.io/bypass-inbound-capture': 'true' } })
    await mesh.serve(open, 'open', [8080])
    for (const key of ['ipv4', 'ipv6'] as const) {
      const result = await connect(mesh.at(stranger), open[key], 8080)
      expect(result).toMatchObject({ ok: true, reply: { server: 'open', peer: result.local } })
      const fromPod = await connect(mesh.at(pod), open[key], 8080)
      expect(ipOf(fromPod.reply?.peer)).toBe(pod[key])
    }
  })

  test('a proxy without an IPv6 address: IPv6 is refused at once', async () => {
    await proxy.netns.ip([`addr del ${proxy.ipv6}/64 dev eth0`])
    await mesh.load()
    const refusedHere = { ok: false, error: 'EPERM', at: 'connect' }
    expect(await connect(mesh.at(pod), stranger.ipv6, 8080)).toMatchObject(refusedHere)
    expect(await connect(mesh.at(pod), stranger.ipv4, 8080)).toMatchObject({ ok: true })
    await proxy.netns.ip([`addr add ${proxy.ipv6}/64 dev eth0 nodad`])
    await mesh.load()
    expect(await connect(mesh.at(pod), stranger.ipv6, 8080)).toMatchObject({ ok: true })
  })
})

test.for(families)('without the proxy, everything is refused over $name', async ({ key, options }) => {
  for (const [from, to] of [
    [pod, stranger],
    [pod, peer],
    [stranger, pod],
  ] as const) {
    expect(await connect(mesh.at(from), to[key], 8080, options)).toMatchObject(refused)
  }
})
