// SPDX-License-Identifier: Apache-2.0
/** Mode sidecar with a real Envoy, configured as istiod does: what Envoy, the app and the peers see. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { localPort, namedPort } from '../sidecar/bootstrap.ts'
import { app, sidecarOptions } from '../sidecar/pod.ts'
import { Sidecar } from '../sidecar/sidecar.ts'
import { waitFor } from '../support/exec.ts'
import { endpoint, families, ipOf, Mesh, portOf } from '../support/mesh.ts'
import { type LanHost, snapshotNetworkRules } from '../support/netns.ts'
import { connect, connectCrowd, SockServer } from '../support/sock.ts'

const services = { ipv4: '10.96.0.10', ipv6: 'fd10:96::10' }
const ownServices = { ipv4: '10.96.0.20', ipv6: 'fd10:96::20' }
const passthrough = { ipv4: '127.0.0.6', ipv6: '::6' }
const otherPort = 8090

let mesh: Mesh
let pod: LanHost
let remote: LanHost
let envoy: Sidecar
let untouched: string

beforeAll(async () => {
  mesh = await Mesh.create({ load: ['--sidecar'] })
  pod = mesh.host(0)
  remote = mesh.host(1)
  untouched = await snapshotNetworkRules(pod.netns.path)
  await mesh.enroll(pod, sidecarOptions())
  const to = (name: string, address: string, endpoint: string, port: number) => ({
    name,
    address,
    endpoint: { address: endpoint, port },
  })
  envoy = await Sidecar.start(mesh.at(pod), [
    to('web4', services.ipv4, remote.ipv4, 9090),
    to('web6', services.ipv6, remote.ipv6, 9090),
    to('self4', ownServices.ipv4, pod.ipv4, namedPort),
    to('self6', ownServices.ipv6, pod.ipv6, namedPort),
  ])
  await SockServer.start({ ...mesh.at(remote), ports: [9090], name: 'remote' })
  await SockServer.start({ ...mesh.at(pod), ports: [namedPort, otherPort], name: 'app' })
  await SockServer.start({
    ...mesh.at(pod),
    ports: [localPort],
    name: 'local-app',
    args: ['--bind', '127.0.0.1'],
  })
})
afterAll(async () => {
  await envoy?.stop()
  await mesh?.dispose()
})

test.for(families)(
  'outbound over $name: Envoy gets the original destination, the app sees it',
  async ({ key, options }) => {
    const result = await connect(mesh.at(pod), remote[key], 9090, [...app, ...options])
    const wanted = endpoint(remote[key], 9090)
    expect(result).toMatchObject({ ok: true, peer: wanted, reply: { server: 'remote', local: wanted } })
    expect(await envoy.connectionFrom(result.local)).toMatchObject({
      chain: 'virtualOutbound-catchall-tcp',
      local: wanted,
      upstream: wanted,
      source: result.reply?.peer,
      flags: '-',
    })
    expect(result.reply?.peer).not.toBe(result.local)
  },
)

test.for(families)('inbound over $name to a named port and to any other', async ({ key, options }) => {
  for (const [port, chain] of [
    [namedPort, `0.0.0.0_${namedPort}`],
    [otherPort, 'virtualInbound'],
  ] as const) {
    const result = await connect(mesh.at(remote), pod[key], port, options)
    const wanted = endpoint(pod[key], port)
    expect(result).toMatchObject({ ok: true, peer: wanted, reply: { server: 'app', local: wanted } })
    expect(await envoy.connectionFrom(result.local)).toMatchObject({ chain, local: wanted, flags: '-' })
    expect(ipOf(result.reply?.peer)).toBe(passthrough[key])
    expect(result.reply?.getpeername).toBe(result.reply?.peer)
  }
})

test.for(families)(
  'a service, over $name, is handed to the listener of its address',
  async ({ key, options }) => {
    const result = await connect(mesh.at(pod), services[key], 80, [...app, ...options])
    expect(result).toMatchObject({ ok: true, peer: endpoint(services[key], 80), reply: { server: 'remote' } })
    expect(await envoy.connectionFrom(result.local)).toMatchObject({
      local: endpoint(services[key], 80),
      upstream: endpoint(remote[key], 9090),
    })
  },
)

test.for(families)(
  'a service that is the pod itself, over $name, goes out by Envoy and comes in by it, once',
  async ({ key, options }) => {
    const result = await connect(mesh.at(pod), ownServices[key], 80, [...app, ...options])
    expect(result).toMatchObject({ ok: true, peer: endpoint(ownServices[key], 80), reply: { server: 'app' } })
    const out = await envoy.connectionFrom(result.local)
    expect(out).toMatchObject({ upstream: endpoint(pod[key], namedPort), flags: '-' })
    const back = await envoy.connectionFrom(out.source)
    expect(back).toMatchObject({
      chain: `0.0.0.0_${namedPort}`,
      local: endpoint(pod[key], namedPort),
      flags: '-',
    })
    expect(ipOf(result.reply?.peer)).toBe(passthrough[key])
  },
)

test.for(families)("the app's own address, over $name, is not Envoy's business", async ({ key, options }) => {
  const result = await connect(mesh.at(pod), pod[key], namedPort, [...app, ...options])
  expect(result).toMatchObject({ ok: true, reply: { server: 'app', peer: result.local } })
})

test.for(families)(
  'an app on loopback gets inbound connections over $name from Envoy',
  async ({ key, options }) => {
    const result = await connect(mesh.at(remote), pod[key], localPort, options)
    expect(result).toMatchObject({
      ok: true,
      peer: endpoint(pod[key], localPort),
      reply: { server: 'local-app' },
    })
    expect(ipOf(result.reply?.peer)).toBe('127.0.0.1')
    expect(await envoy.connectionFrom(result.local)).toMatchObject({
      chain: `0.0.0.0_${localPort}`,
      flags: '-',
    })
  },
)

test.for(families)(
  "Envoy's own ports, dialled from outside over $name, end in its black holes",
  async ({ key, options }) => {
    const inboundPort = await connect(mesh.at(remote), pod[key], 15006, options)
    expect(inboundPort.ok).toBe(false)
    expect(await envoy.connectionFrom(inboundPort.local)).toMatchObject({ chain: 'virtualInbound-blackhole' })
    const outboundPort = await connect(mesh.at(remote), pod[key], 15001, options)
    expect(outboundPort.ok).toBe(false)
    const { chain, source } = await envoy.connectionFrom(outboundPort.local)
    expect([chain, ipOf(source)]).toEqual(['virtualInbound', key === 'ipv4' ? '127.0.0.6' : pod.ipv6])
    const asSeen = endpoint(passthrough[key], portOf(source))
    const local = endpoint(pod[key], 15001)
    expect(await envoy.connectionFrom(asSeen)).toMatchObject({ chain: 'virtualOutbound-blackhole', local })
  },
)

test('many connections at once are each proxied once, and both workers get some', async () => {
  const count = 100
  const [outside, inside] = [endpoint(remote.ipv4, 9090), endpoint(pod.ipv4, otherPort)]
  const ended = () => envoy.connections().filter(({ local }) => local === outside || local === inside).length
  const before = ended()
  expect(await connectCrowd(mesh.at(pod), remote.ipv4, 9090, count, app)).toMatchObject({ ok: count })
  expect(await connectCrowd(mesh.at(remote), pod.ipv4, otherPort, count)).toMatchObject({ ok: count })
  await waitFor('the access log', () => ended() >= before + 2 * count)
  expect(ended()).toBe(before + 2 * count)
  const stats = await pod.netns.run('curl', ['-sS', 'http://127.0.0.1:15000/stats?filter=_150.*worker'])
  const totals = [...stats.matchAll(/downstream_cx_total: (\d+)/g)].map(([, total]) => Number(total))
  expect(totals).toHaveLength(4)
  expect(Math.min(...totals)).toBeGreaterThan(0)
})

test('nothing was changed in the network namespace: no rule, no route, no ::6 on lo', async () => {
  expect(await snapshotNetworkRules(pod.netns.path)).toBe(untouched)
})
