// SPDX-License-Identifier: Apache-2.0
/** Port space: captured connections of one pod to several destinations share no ephemeral ports. */
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { endpoint, Mesh } from '../support/mesh.ts'
import type { LanHost } from '../support/netns.ts'
import type { CrowdResult } from '../support/sock.ts'
import { BackgroundSock, countHandshakes } from './load.ts'

/** Each in a process of its own: a process may have 20,000 open files. */
const perClient = 10_000
const clientsOf = 2
const total = 60_000

let mesh: Mesh
let pod: LanHost

beforeAll(async () => {
  mesh = await Mesh.create({ hosts: 1 })
  pod = mesh.host(0)
})
afterAll(() => mesh?.dispose())

/** Nobody is there: the sink in the proxy's place accepts them all. */
const destinations: readonly (readonly [string, number])[] = [
  ['192.0.2.1', 8080],
  ['192.0.2.1', 8081],
  ['2001:db8::1', 443],
]

/** Of the kernel's objects, sockets for instance; in MB. */
function slabMemory(): number {
  const kilobytes = /^Slab: +(\d+)/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]
  return Math.round(Number(kilobytes) / 1024)
}

test(`a pod holds ${total} captured connections to three destinations, with the default port range`, async () => {
  const range = await pod.netns.run('sysctl', ['-n', 'net.ipv4.ip_local_port_range'])
  expect(range.trim().split(/\s+/)).toEqual(['32768', '60999'])
  const enrolled = await mesh.enroll(pod)
  const proxy = { netns: pod.netns, cgroupDir: mesh.proxy.dir }
  const [start, memory] = [Date.now(), slabMemory()]
  await using sink = await BackgroundSock.start(proxy, ['sink', '--processes', '4'])
  await sink.line(0)
  await using crowds = new AsyncDisposableStack()
  const dial = async ([host, port]: readonly [string, number]): Promise<BackgroundSock> => {
    const expected = ['--expect', `"original":"${endpoint(host, port)}"`]
    const args = ['connect', host, String(port), '--count', String(perClient), '--hold', '120000']
    return crowds.use(await BackgroundSock.start(mesh.at(pod), [...args, ...expected, '--timeout', '30000']))
  }
  const clients = await Promise.all(
    destinations.flatMap((to) => Array.from({ length: clientsOf }, () => dial(to))),
  )
  const results = await Promise.all(clients.map((client) => client.line<CrowdResult>(0, 100_000)))
  const figures = { seconds: (Date.now() - start) / 1000, slabMegabytes: slabMemory() - memory }
  process.stdout.write(`port space: ${total} connections, ${JSON.stringify(figures)}\n`)
  expect(results).toEqual(clients.map(() => ({ count: perClient, ok: perClient, errors: {} })))
  expect(await countEstablished()).toBe(2 * total)
  const { outboundCaptured, handedToProxy } = await mesh.countersOf(enrolled)
  expect(outboundCaptured).toBe(total)
  // A SYN that finds the queue full comes again.
  expect(handedToProxy).toBeGreaterThanOrEqual(total)
  expect(await countHandshakes(mesh, enrolled)).toEqual({ entries: 0, pending: 0 })
}, 180_000)

/** Sockets of the pod, of both ends. */
async function countEstablished(): Promise<number> {
  const text = await pod.netns.run('ss', ['-Hs'])
  return Number(/estab (\d+)/.exec(text)?.[1])
}
