// SPDX-License-Identifier: Apache-2.0
/** SYN cookies: a connection of which no listener remembers the SYN is told apart all the same. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { waitFor } from '../support/exec.ts'
import { endpoint, ipOf, Mesh, watch } from '../support/mesh.ts'
import type { LanHost } from '../support/netns.ts'
import { connectCrowd, type SockServer } from '../support/sock.ts'
import type { ProxyConnection, ZtunnelStandin } from '../support/standin.ts'
import { BackgroundSock, dropInput } from './load.ts'

const count = 1000
const all = { count, ok: count, errors: {} }
/** Of the stand-in's listeners; one SYN more is answered by a cookie. */
const backlog = 128
const keys = ['ipv4', 'ipv6'] as const

type Key = (typeof keys)[number]

let mesh: Mesh
let pod: LanHost
let far: LanHost
let attacker: LanHost
let app: SockServer
let server: SockServer
let standin: ZtunnelStandin

beforeAll(async () => {
  mesh = await Mesh.create({ hosts: 3 })
  ;[pod, far, attacker] = [mesh.host(0), mesh.host(1), mesh.host(2)]
  await mesh.enroll(pod)
  app = await mesh.serve(pod, 'app', [8080])
  server = await mesh.serve(far, 'server', [8080])
  standin = await mesh.startStandin()
})
afterAll(() => mesh?.dispose())

/** Cookies that the pod sent, and those that came back to it. */
async function cookies(): Promise<{ readonly sent: number; readonly received: number }> {
  const text = await pod.netns.run('nstat', ['-asz', 'TcpExtSyncookiesSent', 'TcpExtSyncookiesRecv'])
  const read = (name: string): number => Number(new RegExp(`${name}\\s+(\\d+)`).exec(text)?.[1])
  return { sent: read('SyncookiesSent'), received: read('SyncookiesRecv') }
}

/** That many connections come about with cookies. Gives what the proxy saw of them. */
async function expectCookies(dial: () => Promise<unknown>): Promise<ProxyConnection[]> {
  const earlier = await cookies()
  const connections = watch(standin)
  expect(await dial()).toEqual(all)
  const { sent, received } = await cookies()
  expect(sent - earlier.sent, 'cookies sent').toBeGreaterThanOrEqual(count)
  expect(received - earlier.received, 'cookies that came back').toBeGreaterThanOrEqual(count)
  await waitFor('all at the proxy', () => connections().length >= count)
  return connections()
}

/** From the pod to far. */
async function expectOutbound(key: Key): Promise<void> {
  const earlier = server.connections().length
  const wanted = endpoint(far[key], 8080)
  const seen = await expectCookies(() =>
    connectCrowd(mesh.at(pod), far[key], 8080, count, [
      '--expect',
      `"local":"${wanted}"`,
      '--timeout',
      '10000',
    ]),
  )
  expect(new Set(seen.map(({ original }) => original))).toEqual(new Set([wanted]))
  expect(seen).toHaveLength(count)
  expect(server.connections()).toHaveLength(earlier + count)
}

/** From far, each shown to the app as far. */
async function expectInbound(key: Key): Promise<void> {
  const earlier = app.connections().length
  const client = endpoint(far[key], 0).replace(/0$/, '')
  const seen = await expectCookies(() =>
    connectCrowd(mesh.at(far), pod[key], 8080, count, [
      '--expect',
      `"peer":"${client}`,
      '--timeout',
      '10000',
    ]),
  )
  expect(new Set(seen.map(({ source }) => source))).toEqual(new Set([far[key]]))
  expect(new Set(seen.map(({ dialled }) => dialled))).toEqual(new Set([endpoint(pod[key], 8080)]))
  const shown = app.connections().slice(earlier)
  expect(shown).toHaveLength(count)
  expect(new Set(shown.map(({ peer }) => ipOf(peer)))).toEqual(new Set([far[key]]))
}

describe.for(keys)('where every SYN is answered by a cookie, over %s', (key) => {
  beforeAll(() => pod.netns.sysctl({ 'ipv4.tcp_syncookies': 2 }))
  afterAll(() => pod.netns.sysctl({ 'ipv4.tcp_syncookies': 1 }))

  test(`${count} outbound connections go where they were dialled`, () => expectOutbound(key))
  test(`the app is shown the client of ${count} inbound connections`, () => expectInbound(key))
})

/** The queue of this listener of the pod's is full of SYNs. */
function waitForFullQueue(state: readonly string[]): Promise<unknown> {
  return waitFor('a full queue', async () => {
    const text = await pod.netns.run('ss', ['-Htn', 'state', 'syn-recv', ...state])
    return text.split('\n').length > backlog
  })
}

describe('during a flood of SYNs', () => {
  test(`the app is shown the client of ${count} inbound connections`, async () => {
    // It is all of 10.250.0.128/25, and says nothing to an answer.
    await attacker.netns.ip(['route add local 10.250.0.128/25 dev eth0'])
    await using _mute = await dropInput(attacker.netns, 'tcp flags & syn == syn')
    const args = ['syn-flood', pod.ipv4, '8080', '--from', '10.250.0.128', '--sources', '128', '--pause', '2']
    await using flood = await BackgroundSock.start(mesh.at(attacker), args)
    await waitForFullQueue(['sport', '=', ':8080'])
    await expectInbound('ipv4')
    flood.tell()
    expect((await flood.line<{ sent: number }>(0)).sent).toBeGreaterThan(4 * backlog)
  })

  /** A SYN from elsewhere does not get to 15001: this flood is the pod's own, from loopback, to where no answer comes. */
  test.for(keys)(`${count} outbound connections go where they were dialled, over %s`, async (key) => {
    const loopback = key === 'ipv4' ? '127.0.0.1' : '::1'
    const to = `${key === 'ipv4' ? 'ip' : 'ip6'} daddr ${loopback}`
    await using _mute = await dropInput(pod.netns, `${to} tcp flags & (syn|ack) == syn|ack`)
    const args = ['flood', far[key], '8080', '--count', '400', '--bind', loopback]
    await using flood = await BackgroundSock.start(mesh.at(pod), args)
    await flood.line(0)
    await waitForFullQueue(['dst', `[${loopback}]`])
    await expectOutbound(key)
  })
})
