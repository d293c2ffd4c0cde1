// SPDX-License-Identifier: Apache-2.0
/** Who is the proxy, and so may go past it: by cgroup, or by the mark of a socket. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { endpoint, families, Mesh, watch } from '../support/mesh.ts'
import type { LanHost } from '../support/netns.ts'
import { type ConnectResult, connect } from '../support/sock.ts'
import { ZtunnelStandin } from '../support/standin.ts'

/** 0x539, which ztunnel has on its sockets. */
const mark = ['--mark', '1337']
const user = ['--uid', '1337', '--gid', '1337']

let mesh: Mesh
let pod: LanHost
let remote: LanHost
let standin: ZtunnelStandin

async function setUp(load: readonly string[], conf: Readonly<Record<string, unknown>> = {}): Promise<void> {
  mesh = await Mesh.create({ hosts: 2, load })
  pod = mesh.host(0)
  remote = mesh.host(1)
  standin = await mesh.startStandin()
  await mesh.enroll(pod, { conf })
  await mesh.serve(remote, 'remote', [8080])
}

/** Connect out of the pod's netns from a process in that cgroup. */
async function isCaptured(
  cgroupDir: string,
  key: 'ipv4' | 'ipv6',
  options: readonly string[],
): Promise<boolean> {
  const connections = watch(standin)
  const result: ConnectResult = await connect({ netns: pod.netns, cgroupDir }, remote[key], 8080, options)
  expect(result).toMatchObject({
    ok: true,
    peer: endpoint(remote[key], 8080),
    reply: { server: 'remote' },
  })
  const isDirect = result.reply?.peer === result.local
  expect(connections()).toHaveLength(isDirect ? 0 : 1)
  return !isDirect
}

describe('by cgroup', () => {
  beforeAll(() => setUp([]))
  afterAll(() => mesh?.dispose())

  describe.for(families)('over $name', ({ key, options }) => {
    test('a process of the pod is captured', async () => {
      expect(await isCaptured(mesh.pods.dir, key, options)).toBe(true)
    })

    test('the mark of ztunnel buys it nothing', async () => {
      expect(await isCaptured(mesh.pods.dir, key, [...options, ...mark])).toBe(true)
    })

    test('nor does the user id of a sidecar', async () => {
      expect(await isCaptured(mesh.pods.dir, key, [...options, ...user])).toBe(true)
    })

    test("a process in a proxy's cgroup is not captured, with or without the mark", async () => {
      expect(await isCaptured(mesh.proxy.dir, key, options)).toBe(false)
      expect(await isCaptured(mesh.proxy.dir, key, [...options, ...mark])).toBe(false)
    })
  })

  test('a process below a proxy cgroup is the proxy, too', async () => {
    await using below = mesh.proxy.child('worker')
    expect(await isCaptured(below.dir, 'ipv4', [])).toBe(false)
  })

  test('a proxy cgroup that was named later counts from then on, and the first still does', async () => {
    await using other = mesh.cgroup.child('other-proxy')
    expect(await isCaptured(other.dir, 'ipv4', [])).toBe(true)
    await mesh.load(['--proxy-cgroup', other.dir])
    expect(await isCaptured(other.dir, 'ipv4', [])).toBe(false)
    expect(await isCaptured(mesh.proxy.dir, 'ipv4', [])).toBe(false)
  })

  test('listeners of the app at the ports of the proxy get nothing', async () => {
    await standin.del(pod.netns.path)
    await using thief = await mesh.serve(pod, 'thief', [15001, 15006, 15008])
    for (const [from, to, port] of [
      [pod, remote, 8080],
      [remote, pod, 8080],
      [remote, pod, 15006],
      [remote, pod, 15008],
    ] as const) {
      const result = await connect(mesh.at(from), to.ipv4, port, mark)
      expect(result).toMatchObject({ ok: false, error: 'ECONNREFUSED' })
    }
    expect(thief.connections()).toEqual([])
  })
})

describe('by mark', () => {
  beforeAll(() => setUp(['--proxy-identity', 'mark']))
  afterAll(() => mesh?.dispose())

  describe.for(families)('over $name', ({ key, options }) => {
    test('the mark alone decides, wherever the process is', async () => {
      for (const { dir } of [mesh.pods, mesh.proxy]) {
        expect(await isCaptured(dir, key, options), dir).toBe(true)
        expect(await isCaptured(dir, key, [...options, ...mark]), dir).toBe(false)
      }
    })

    test('only its last 12 bits count', async () => {
      expect(await isCaptured(mesh.pods.dir, key, [...options, '--mark', '0x7000539'])).toBe(false)
      expect(await isCaptured(mesh.pods.dir, key, [...options, '--mark', '0x538'])).toBe(true)
    })

    test('the user id of a sidecar buys nothing', async () => {
      expect(await isCaptured(mesh.pods.dir, key, [...options, ...user])).toBe(true)
    })
  })

  test('a proxy outside every proxy cgroup serves the pod', async () => {
    await standin.del(pod.netns.path)
    await using proxy = await ZtunnelStandin.start({ cgroupDir: mesh.pods.dir, name: 'elsewhere' })
    await proxy.add(pod.netns.path)
    await using _app = await mesh.serve(pod, 'app', [8080])
    const outbound = await connect(mesh.at(pod), remote.ipv4, 8080)
    expect(outbound).toMatchObject({ ok: true, reply: { server: 'remote' } })
    const inbound = await connect(mesh.at(remote), pod.ipv4, 8080)
    expect(inbound).toMatchObject({ ok: true, reply: { server: 'app' } })
    expect(inbound.reply?.peer).toMatch(`${remote.ipv4}:`)
    expect(proxy.connections()).toMatchObject([
      { listener: 15001, original: endpoint(remote.ipv4, 8080), via_sockopt: 'SOL_IP' },
      { listener: 15006, original: endpoint(pod.ipv4, 8080) },
    ])
  })

  test('a proxy without the mark is not believed: its listeners get nothing', async () => {
    await using proxy = await ZtunnelStandin.start({ cgroupDir: mesh.proxy.dir, mark: false })
    await proxy.add(pod.netns.path)
    const result = await connect(mesh.at(pod), remote.ipv4, 8080)
    expect(result).toMatchObject({ ok: false, error: 'ECONNREFUSED' })
    expect(proxy.connections()).toEqual([])
  })
})

describe('by the network configuration of one pod', () => {
  beforeAll(() => setUp([], { proxyIdentity: 'mark' }))
  afterAll(() => mesh?.dispose())

  test('the mark decides there, though the programs were loaded for cgroups', async () => {
    expect(await isCaptured(mesh.pods.dir, 'ipv4', mark)).toBe(false)
    expect(await isCaptured(mesh.pods.dir, 'ipv4', [])).toBe(true)
    expect(await isCaptured(mesh.proxy.dir, 'ipv6', [])).toBe(true)
  })
})
