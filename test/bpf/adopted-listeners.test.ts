// SPDX-License-Identifier: Apache-2.0
/** A proxy that listened before the programs were loaded serves its pods once its listeners are adopted. */
import { readdirSync } from 'node:fs'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { Store } from '../../src/bpf/store.ts'
import { pinPaths } from '../../src/linux/bpffs.ts'
import { type AdoptedListener, adoptListeners } from '../../src/pods/listeners.ts'
import { families, ipOf, Mesh, watch } from '../support/mesh.ts'
import type { LanHost } from '../support/netns.ts'
import { connect, SockClient } from '../support/sock.ts'
import { type StandinOptions, ZtunnelStandin } from '../support/standin.ts'

const ports = [15001, 15006, 15008]
const refused = { ok: false, error: 'ECONNREFUSED', at: 'connect' }

let mesh: Mesh
let pod: LanHost
let far: LanHost
let standins: ZtunnelStandin[]

beforeEach(async () => {
  mesh = await Mesh.create()
  ;[pod, far] = [mesh.host(0), mesh.host(1)]
  standins = []
})
afterEach(async () => {
  for (const standin of standins) await standin.stop()
  await mesh?.dispose()
})

/** A proxy that listens in the pod while nothing is loaded. */
async function startUnnoticed(options: StandinOptions = {}): Promise<ZtunnelStandin> {
  await mesh.ambridge('unload')
  const standin = await ZtunnelStandin.start({ cgroupDir: mesh.proxy.dir, ...options })
  standins.push(standin)
  await standin.add(pod.netns.path)
  await mesh.load()
  return standin
}

async function enrollAndServe(): Promise<void> {
  await mesh.enroll(pod)
  await mesh.serve(pod, 'app', [8080])
  await mesh.serve(far, 'far', [8080])
}

const adopt = (...proxies: readonly ZtunnelStandin[]) =>
  adoptListeners(
    proxies.map(({ daemon }) => daemon.pid),
    mesh.bpffs,
  )

const inOrder = (adopted: readonly AdoptedListener[]) =>
  adopted.map(({ port, family }) => `${port} ${family}`).sort()

const dialOut = (key: 'ipv4' | 'ipv6', options: readonly string[] = []) =>
  connect(mesh.at(pod), far[key], 8080, options)
const dialIn = (key: 'ipv4' | 'ipv6', options: readonly string[] = []) =>
  connect(mesh.at(far), pod[key], 8080, options)

test('what was refused works in both directions, over every family, with both ends as they were', async () => {
  const standin = await startUnnoticed()
  await enrollAndServe()
  for (const { key, options } of families) {
    expect(await dialOut(key, options)).toMatchObject(refused)
    expect(await dialIn(key, options)).toMatchObject(refused)
  }

  const adopted = adopt(standin)
  expect(inOrder(adopted)).toEqual(ports.flatMap((port) => [`${port} 4`, `${port} 6`]))
  using store = new Store(pinPaths(mesh.bpffs).maps)
  expect(adopted.map(({ netns }) => netns)).toEqual(adopted.map(() => store.pods.keys()[0]))

  for (const { key, options } of families) {
    const connections = watch(standin)
    const out = await dialOut(key, options)
    expect(out).toMatchObject({ ok: true, reply: { server: 'far' } })
    const into = await dialIn(key, options)
    expect(into).toMatchObject({ ok: true, reply: { server: 'app' } })
    expect(ipOf(into.reply?.peer)).toBe(far[key])
    const [first, second] = connections()
    expect(first).toMatchObject({ listener: 15001, peer: out.local, dialled: out.peer })
    expect(first?.via_sockopt).toBe(key === 'ipv4' ? 'SOL_IP' : 'SOL_IPV6')
    expect(second).toMatchObject({ listener: 15006, peer: into.local, dialled: into.peer, source: far[key] })
  }
  expect(await connect(mesh.at(far), pod.ipv4, 15008)).not.toMatchObject(refused)
})

test('a proxy of a pod without IPv6 is adopted for IPv4 alone', async () => {
  const standin = await startUnnoticed({ ipv4Only: true })
  await enrollAndServe()
  expect(inOrder(adopt(standin))).toEqual(ports.map((port) => `${port} 4`))
  expect(await dialIn('ipv4')).toMatchObject({ ok: true, reply: { server: 'app' } })
  expect(await dialIn('ipv6')).toMatchObject(refused)
})

test('the app can start again on its port while the adopted proxy has a client of it', async () => {
  const standin = await startUnnoticed()
  await mesh.enroll(pod)
  adopt(standin)
  const app = await mesh.serve(pod, 'app', [8080])
  await using held = await SockClient.start(mesh.at(far), pod.ipv4, 8080, ['--hold', '60000'])
  expect(await held.result()).toMatchObject({ ok: true })
  await app.stop()
  await mesh.serve(pod, 'app again', [8080])
  expect(await dialIn('ipv6')).toMatchObject({ ok: true, reply: { server: 'app again' } })
})

test('of two proxies the younger one gets all; when it ends, the older; one that comes later is before both', async () => {
  const older = await startUnnoticed({ name: 'older' })
  const younger = await startUnnoticed({ name: 'younger' })
  await enrollAndServe()
  adopt(older, younger)
  await expectServedBy(younger)
  const latest = await ZtunnelStandin.start({ cgroupDir: mesh.proxy.dir, name: 'latest' })
  standins.push(latest)
  await latest.add(pod.netns.path)
  await expectServedBy(latest)
  await latest.stop()
  await expectServedBy(younger)
  await younger.stop()
  await expectServedBy(older)
}, 60_000)

async function expectServedBy(standin: ZtunnelStandin): Promise<void> {
  const connections = watch(standin)
  expect(await dialOut('ipv4')).toMatchObject({ ok: true, reply: { server: 'far' } })
  expect(await dialIn('ipv6')).toMatchObject({ ok: true, reply: { server: 'app' } })
  expect(connections().map(({ listener }) => listener)).toEqual([15001, 15006])
}

test('nothing is adopted twice, for other pods, from other processes, or after their end', async () => {
  const standin = await startUnnoticed()
  await standin.add(far.netns.path)
  expect(adopt(standin)).toEqual([])
  await mesh.enroll(pod)
  expect(adoptListeners([process.pid], mesh.bpffs)).toEqual([])
  expect(adoptListeners([], mesh.bpffs)).toEqual([])
  expect(adopt(standin)).toHaveLength(2 * ports.length)
  expect(adopt(standin)).toEqual([])

  await standin.stop()
  expect(adopt(standin)).toEqual([])
})

test('only what the proxy has for the pods is copied, and no copy stays behind', async () => {
  const standin = await startUnnoticed()
  await mesh.enroll(pod)
  const own = () => readdirSync('/proc/self/fd').length
  const before = own()
  expect(adopt(standin)).toHaveLength(2 * ports.length)
  expect(own()).toBe(before)
  // A copy would keep the port taken.
  await standin.del(pod.netns.path)
  const next = await ZtunnelStandin.start({ cgroupDir: mesh.proxy.dir })
  standins.push(next)
  await next.add(pod.netns.path)
  expect(adopt(standin, next)).toEqual([])
})
