// SPDX-License-Identifier: Apache-2.0
/** Inbound capture: which listener gets what comes to an enrolled pod from elsewhere. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { waitFor } from '../support/exec.ts'
import { type Enrolled, endpoint, families, ipOf, Mesh, watch } from '../support/mesh.ts'
import type { LanHost } from '../support/netns.ts'
import { type ConnectResult, connect, SockClient, type SockServer } from '../support/sock.ts'
import { type ProxyConnection, ZtunnelStandin } from '../support/standin.ts'

const refused = { ok: false, error: 'ECONNREFUSED', at: 'connect' }

let mesh: Mesh
let pod: LanHost
let client: LanHost
let enrolled: Enrolled
let app: SockServer

beforeAll(async () => {
  mesh = await Mesh.create({ hosts: 3 })
  pod = mesh.host(0)
  client = mesh.host(1)
  enrolled = await mesh.enroll(pod)
  app = await mesh.serve(pod, 'app', [8080])
})
afterAll(() => mesh?.dispose())

describe('with a proxy', () => {
  let standin: ZtunnelStandin

  beforeAll(async () => {
    standin = await mesh.startStandin()
  })
  afterAll(() => standin?.stop())

  /** From outside, and what the proxy says of it. */
  async function dial(
    [to, port]: readonly [string, number],
    options: readonly string[],
  ): Promise<{ result: ConnectResult; seen: ProxyConnection }> {
    const connections = watch(standin)
    const result = await connect(mesh.at(client), to, port, options)
    const find = (): ProxyConnection | undefined => connections().find((each) => each.peer === result.local)
    return { result, seen: await waitFor('the connection at the proxy', find) }
  }

  describe.for(families)('over $name', ({ key, options }) => {
    test('a connection to the app goes through 15006', async () => {
      const wanted = endpoint(pod[key], 8080)
      const { result, seen } = await dial([pod[key], 8080], options)
      expect(result).toMatchObject({ ok: true, peer: wanted, reply: { server: 'app', local: wanted } })
      expect(seen).toMatchObject({ listener: 15006, local: wanted, original: wanted, dialled: wanted })
      expect(seen).toMatchObject({ via_sockopt: 'getsockname', source: client[key], error: '' })
    })

    test.for([
      { port: 9, what: 'a port without a listener', error: 'connect: ECONNREFUSED' },
      { port: 15053, what: "the proxy's DNS port", error: 'connect: ECONNREFUSED' },
      { port: 15006, what: "the proxy's inbound port", error: 'illegal port' },
      { port: 15001, what: "the proxy's outbound port", error: 'illegal port' },
    ])('a connection to $port, $what, goes through 15006 and ends there', async ({ port, error }) => {
      const { result, seen } = await dial([pod[key], port], options)
      expect(seen).toMatchObject({ listener: 15006, local: endpoint(pod[key], port), error })
      expect(result).toMatchObject({ ok: false, at: 'read' })
    })

    test('15008 is the HBONE listener, which knows the address by getsockname', async () => {
      const wanted = endpoint(pod[key], 8080)
      const { result, seen } = await dial([pod[key], 15008], [...options, '--hbone', wanted])
      expect(result).toMatchObject({ ok: true, reply: { server: 'app' } })
      expect(seen).toMatchObject({ listener: 15008, local: endpoint(pod[key], 15008), error: '' })
      expect(seen).toMatchObject({ via_sockopt: 'getsockname', dialled: wanted })
    })

    test('data goes both ways, with half-close', async () => {
      const { result } = await dial([pod[key], 8080], [...options, '--send', 'ping'])
      expect(result).toMatchObject({ ok: true, echo: 'ping' })
    })

    test('the app that answers is the one at the port which was dialled', async () => {
      await using _other = await mesh.serve(pod, 'other', [8081])
      expect((await dial([pod[key], 8081], options)).result.reply?.server).toBe('other')
      expect((await dial([pod[key], 8080], options)).result.reply?.server).toBe('app')
    })
  })

  test('an app can listen again while clients of the one before it are connected', async () => {
    const before = await mesh.serve(pod, 'before', [8090])
    await using held = await SockClient.start(mesh.at(client), pod.ipv4, 8090, ['--hold', '60000'])
    await using _held6 = await SockClient.start(mesh.at(client), pod.ipv6, 8090, ['--hold', '60000'])
    expect(await held.result()).toMatchObject({ ok: true, reply: { server: 'before' } })
    await before.stop()
    await using _after = await mesh.serve(pod, 'after', [8090])
    expect(await connect(mesh.at(client), pod.ipv4, 8090)).toMatchObject({ reply: { server: 'after' } })
  })

  test('a pod that is not enrolled is reached directly', async () => {
    const connections = watch(standin)
    const other = mesh.host(2)
    await using _app = await mesh.serve(other, 'plain', [8080])
    const result = await connect(mesh.at(client), other.ipv4, 8080)
    expect(result).toMatchObject({ ok: true, reply: { server: 'plain', peer: result.local } })
    expect(connections()).toEqual([])
  })
})

test('a proxy that listens on IPv4 alone gets IPv4, and IPv6 is refused', async () => {
  await using standin = await mesh.startStandin({ ipv4Only: true })
  const earlier = app.connections().length
  expect(await connect(mesh.at(client), pod.ipv4, 8080)).toMatchObject({ ok: true })
  expect(await connect(mesh.at(client), pod.ipv6, 8080)).toMatchObject(refused)
  expect(await connect(mesh.at(client), pod.ipv6, 15008)).toMatchObject(refused)
  expect(await connect(mesh.at(pod), client.ipv6, 8080)).toMatchObject(refused)
  expect(standin.connections()).toHaveLength(1)
  expect(app.connections()).toHaveLength(earlier + 1)
})

test('a proxy that came before ADD is found', async () => {
  const early = mesh.host(2)
  await using standin = await ZtunnelStandin.start({ cgroupDir: mesh.proxy.dir })
  await standin.add(early.netns.path)
  await using _app = await mesh.serve(early, 'app', [8080])
  const added = await mesh.enroll(early)
  for (const key of ['ipv4', 'ipv6'] as const)
    expect(await connect(mesh.at(client), early[key], 8080)).toMatchObject({ ok: true })
  const captured = { listener: 15006, error: '' }
  expect(standin.connections()).toMatchObject([captured, captured])
  await mesh.withdraw(added)
})

describe('without a proxy', () => {
  test.for(families)('everything is refused, in both directions, over $name', async ({ key, options }) => {
    await using server = await mesh.serve(client, 'server', [8080])
    const earlier = app.connections().length
    const refusals = async (): Promise<number> =>
      (await mesh.countersOf(enrolled))['inboundRefusedNoListener'] ?? 0
    const before = await refusals()
    for (const port of [8080, 15008, 15006]) {
      expect(await connect(mesh.at(client), pod[key], port, options)).toMatchObject(refused)
    }
    expect(await connect(mesh.at(pod), client[key], 8080, options)).toMatchObject(refused)
    expect([server.connections(), app.connections().length]).toEqual([[], earlier])
    expect(await refusals()).toBe(before + 4)
  })

  test('the pod still reaches itself', async () => {
    for (const address of [pod.ipv4, pod.ipv6, '127.0.0.1', '::1']) {
      expect(await connect(mesh.at(pod), address, 8080)).toMatchObject({ ok: true })
    }
  })
})

describe('with bypass-inbound-capture', () => {
  let bypassed: LanHost
  let standin: ZtunnelStandin

  beforeAll(async () => {
    bypassed = mesh.host(2)
    await mesh.enroll(bypassed, {
      containerId: 'bypassed',
      annotations: { 'ambient.istio.io/bypass-inbound-capture': 'true' },
    })
    standin = await mesh.startStandin()
    await mesh.serve(bypassed, 'bypassed', [8080])
  })

  test.for(families)('the app is reached directly over $name', async ({ key, options }) => {
    const connections = watch(standin)
    const result = await connect(mesh.at(client), bypassed[key], 8080, options)
    expect(result).toMatchObject({ ok: true, reply: { server: 'bypassed', peer: result.local } })
    expect(await connect(mesh.at(client), bypassed[key], 9, options)).toMatchObject(refused)
    expect(connections()).toEqual([])
  })

  test.for(families)('HBONE over $name still shows the app its client', async ({ key, options }) => {
    const to = ['--hbone', endpoint(bypassed[key], 8080)]
    const result = await connect(mesh.at(client), bypassed[key], 15008, [...options, ...to])
    expect(result).toMatchObject({ ok: true, reply: { server: 'bypassed' } })
    expect(ipOf(result.reply?.peer)).toBe(client[key])
  })

  test('an app at 15008 gets nothing while the proxy is away', async () => {
    await standin.del(bypassed.netns.path)
    await using thief = await mesh.serve(bypassed, 'thief', [15008])
    for (const key of ['ipv4', 'ipv6'] as const)
      expect(await connect(mesh.at(client), bypassed[key], 15008)).toMatchObject(refused)
    expect(thief.connections()).toEqual([])
    await thief.stop()
    await standin.add(bypassed.netns.path)
  })

  test('outbound is still captured', async () => {
    await using _server = await mesh.serve(client, 'server', [8080])
    const connections = watch(standin)
    expect(await connect(mesh.at(bypassed), client.ipv4, 8080)).toMatchObject({ ok: true })
    expect(connections()).toMatchObject([{ listener: 15001, original: endpoint(client.ipv4, 8080) }])
  })
})
