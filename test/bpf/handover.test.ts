// SPDX-License-Identifier: Apache-2.0
/** One proxy replaces another at the same ports of an enrolled pod: nothing fails, and nothing gets past both. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { waitFor } from '../support/exec.ts'
import { type Enrolled, endpoint, Mesh, watch } from '../support/mesh.ts'
import type { LanHost } from '../support/netns.ts'
import { connect, SockClient, type SockServer } from '../support/sock.ts'
import type { ProxyConnection, ZtunnelStandin } from '../support/standin.ts'
import { startChurn } from './load.ts'

const handovers = 50
/** LISTENER_SLOTS in bpf/layout.h */
const slots = 8
const refused = { ok: false, error: 'ECONNREFUSED', at: 'connect' }

let mesh: Mesh
let pod: LanHost
let far: LanHost
let enrolled: Enrolled
let app: SockServer
let server: SockServer

beforeAll(async () => {
  mesh = await Mesh.create()
  pod = mesh.host(0)
  far = mesh.host(1)
  enrolled = await mesh.enroll(pod)
  app = await mesh.serve(pod, 'app', [8080])
  server = await mesh.serve(far, 'far', [8080])
})
afterAll(() => mesh?.dispose())

function toServer(connections: readonly ProxyConnection[]): ProxyConnection[] {
  return connections.filter((each) => each.dialled === endpoint(far.ipv4, 8080))
}

function toApp(connections: readonly ProxyConnection[]): ProxyConnection[] {
  return connections.filter((each) => each.dialled === endpoint(pod.ipv4, 8080))
}

/** Until it has connections of both directions. */
function waitForWork(standin: ZtunnelStandin): Promise<unknown> {
  return waitFor('work for the new proxy', () => {
    const connections = standin.connections()
    return toServer(connections).length >= 40 && toApp(connections).length >= 40
  })
}

/** Does each direction work, through this proxy? */
async function expectServedBy(standin: ZtunnelStandin): Promise<void> {
  const connections = watch(standin)
  expect(await connect(mesh.at(pod), far.ipv4, 8080)).toMatchObject({ ok: true, reply: { server: 'far' } })
  expect(await connect(mesh.at(far), pod.ipv4, 8080)).toMatchObject({ ok: true, reply: { server: 'app' } })
  await waitFor('both at the proxy', () => connections().length === 2)
}

async function kill(standin: ZtunnelStandin): Promise<void> {
  process.kill(standin.daemon.pid, 'SIGKILL')
  await standin.daemon.exited
}

test(`${handovers} hand-overs under load fail no connection, and none gets past the proxies`, async () => {
  const standins = [await mesh.startStandin({ name: '0' })]
  const outbound = await startChurn(mesh.at(pod), [far.ipv4, 8080], `"local":"${endpoint(far.ipv4, 8080)}"`)
  const inbound = await startChurn(mesh.at(far), [pod.ipv4, 8080], `"peer":"${far.ipv4}:`)
  for (let i = 1; i <= handovers; i++) {
    const old = standins[i - 1]
    const next = await mesh.startStandin({ name: String(i) })
    standins.push(next)
    await old?.drain()
    await old?.daemon.exited
    await waitForWork(next)
  }
  const [out, into] = [await outbound.stop(), await inbound.stop()]
  const seen = (): ProxyConnection[] => standins.flatMap((standin) => standin.connections())
  await waitFor('what the last proxy has to say', () => seen().length >= out.made + into.made)
  const connections = seen()
  await standins.at(-1)?.stop()
  const figures = { handovers, outbound: out, inbound: into }
  process.stdout.write(`hand-overs: ${JSON.stringify(figures)}\n`)
  expect(figures).toMatchObject({
    outbound: { ok: out.made, errors: {} },
    inbound: { ok: into.made, errors: {} },
  })
  expect(connections.filter(({ error }) => error !== '')).toEqual([])
  expect(toServer(connections)).toHaveLength(out.made)
  expect(server.connections()).toHaveLength(out.made)
  expect(toApp(connections)).toHaveLength(into.made)
  expect(app.connections()).toHaveLength(into.made)
  const counters = await mesh.countersOf(enrolled)
  expect(counters).toMatchObject({ inboundCaptured: into.made, inboundFromProxy: into.made })
  expect(counters).not.toHaveProperty('inboundSelf')
  expect(counters).not.toHaveProperty('inboundExcluded')
}, 180_000)

test(`a proxy that stays is not forgotten while ${slots + 4} others come and go`, async () => {
  await using stays = await mesh.startStandin({ name: 'stays' })
  for (let i = 0; i < slots + 4; i++) {
    const other = await mesh.startStandin({ name: `other ${i}` })
    await expectServedBy(other)
    await kill(other)
  }
  await expectServedBy(stays)
}, 120_000)

test('when the newest is killed the older one takes over at once; when both are, all is refused', async () => {
  await using older = await mesh.startStandin({ name: 'older' })
  await using newest = await mesh.startStandin({ name: 'newest' })
  await expectServedBy(newest)
  const earlier = app.connections().length
  await kill(newest)
  await expectServedBy(older)
  await kill(older)
  expect(await connect(mesh.at(pod), far.ipv4, 8080)).toMatchObject(refused)
  expect(await connect(mesh.at(far), pod.ipv4, 8080)).toMatchObject(refused)
  expect(await connect(mesh.at(far), pod.ipv4, 15008)).toMatchObject(refused)
  expect(app.connections()).toHaveLength(earlier + 1)
})

test('while the newest hangs, connections wait for it; what waits is lost with it, and the older one goes on', async () => {
  await using older = await mesh.startStandin({ name: 'older' })
  await using newest = await mesh.startStandin({ name: 'newest' })
  await newest.stall()
  await using waiting = await SockClient.start(mesh.at(far), pod.ipv4, 8080, ['--wait-stdin'])
  waiting.connect()
  const queued = async (): Promise<boolean> =>
    /^LISTEN\s+1\s/m.test(await pod.netns.run('ss', ['-Hltn', 'sport', '=', ':15006']))
  await waitFor('the connection in the queue', queued)
  expect(older.connections()).toEqual([])
  await kill(newest)
  expect(await waiting.result()).toMatchObject({ ok: false, error: 'ECONNRESET' })
  await expectServedBy(older)
})
