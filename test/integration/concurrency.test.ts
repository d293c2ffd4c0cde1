// SPDX-License-Identifier: Apache-2.0
/** Many plugins at once, as when a node starts: whatever the order, the state afterwards is exact. */
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { Netns as OpenNetns } from '../../src/linux/netns.ts'
import { type CniCall, type CniOutcome, cni, tryCni } from '../support/ambridge.ts'
import { run } from '../support/exec.ts'
import { Mesh } from '../support/mesh.ts'
import { type NetnsCrowd, netnsCrowd } from '../support/netns-crowd.ts'

const podCount = 200
const atOnce = 30

interface Pod {
  readonly containerId: string
  readonly netns: string
  readonly address: string
}

let mesh: Mesh
let crowd: NetnsCrowd
let pods: readonly Pod[]

beforeAll(async () => {
  mesh = await Mesh.create({ hosts: 1 })
  crowd = await netnsCrowd(podCount)
  pods = crowd.netnses.map(({ path, address }, i) => ({ containerId: `crowd-${i}`, netns: path, address }))
})
afterEach(async () => {
  const { pods: left } = await mesh.status()
  for (const { containerId, ifname } of left) await cni('DEL', { containerId, ifname, conf: mesh.conf() })
})
afterAll(async () => {
  await crowd?.[Symbol.asyncDispose]()
  await mesh?.dispose()
})

function callFor({ containerId, netns, address }: Pod): CniCall {
  const prevResult = {
    cniVersion: '1.1.0',
    interfaces: [{ name: 'eth0', sandbox: netns }],
    ips: [{ address: `${address}/24`, interface: 0 }],
  }
  return { containerId, netns, ifname: 'eth0', conf: { ...mesh.conf(), cniVersion: '1.1.0', prevResult } }
}

/** Results in order, at most `limit` at once. */
async function inParallel<T, R>(
  items: readonly T[],
  limit: number,
  fn: (item: T) => Promise<R>,
): Promise<R[]> {
  const results: R[] = []
  const rest = items.entries()
  const work = async (): Promise<void> => {
    for (const [i, item] of rest) results[i] = await fn(item)
  }
  await Promise.all(Array.from({ length: limit }, work))
  return results
}

/** A repeatable shuffle, so that a failure can be run again. */
function shuffled<T>(items: readonly T[]): T[] {
  let seed = 1
  const random = () => {
    seed = (seed * 48271) % 2147483647
    return seed / 2147483647
  }
  return items
    .map((item) => [random(), item] as const)
    .toSorted(([a], [b]) => a - b)
    .map(([, item]) => item)
}

/** Number of entries of a map, by bpftool. */
async function entriesOf(map: string): Promise<number> {
  const dump: unknown = JSON.parse(
    await run('bpftool', ['-j', 'map', 'dump', 'pinned', join(mesh.bpffs, 'maps', map)]),
  )
  return Array.isArray(dump) ? dump.length : 0
}

/** Of everything that ADD makes. `cgroups`: that of the mesh's proxy. */
async function traces(): Promise<Record<string, number>> {
  const names = [
    'attachments',
    'pods',
    'pod_addrs',
    'pending',
    'rules',
    'counters',
    'listener_next',
    'cgroups',
  ]
  const sizes = await Promise.all(names.map(async (name) => [name, await entriesOf(name)] as const))
  return { ...Object.fromEntries(sizes), pins: readdirSync(join(mesh.bpffs, 'netns')).length }
}

/** One address in the pod's scope and one in the node's, for each; the netns have no other than IPv4. */
function tracesOf(count: number): Record<string, number> {
  return {
    ...{ attachments: count, pods: count, pod_addrs: 2 * count, pending: count, pins: count },
    ...{ rules: 0, counters: 0, listener_next: 0, cgroups: 1 },
  }
}

async function expectSuccess(outcomes: Promise<readonly CniOutcome[]>): Promise<void> {
  expect((await outcomes).filter(({ code }) => code !== 0)).toEqual([])
}

const addAll = () => expectSuccess(inParallel(pods, atOnce, (pod) => tryCni('ADD', callFor(pod))))

test(`${podCount} ADDs, ${atOnce} at a time: each pod is registered as itself`, {
  timeout: 120_000,
}, async () => {
  await addAll()
  const { pods: registered } = await mesh.status()
  const known = new Map(registered.map((pod) => [pod.containerId, pod]))
  for (const { containerId, netns, address } of pods) {
    const own = { netnsInode: String(statSync(netns).ino), addresses: [address], link: `${containerId}:eth0` }
    expect(known.get(containerId)).toMatchObject({ ...own, alive: true })
  }
  expect(new Set(registered.map(({ netnsCookie }) => netnsCookie)).size).toBe(podCount)
  expect(await traces()).toEqual(tracesOf(podCount))
})

test('DEL in random order, each twice, with GC between: what is left is exact', {
  timeout: 180_000,
}, async () => {
  await addAll()
  const order = shuffled(pods)
  const [deleted, collected, kept] = [order.slice(0, 80), order.slice(80, 120), order.slice(120)]
  // The runtime lists what it is deleting; what it does not list is for GC alone.
  const listed = [...deleted, ...kept].map(({ containerId }) => ({
    containerID: containerId,
    ifname: 'eth0',
  }))
  const gcConf = { ...mesh.conf(), cniVersion: '1.1.0', 'cni.dev/valid-attachments': listed }
  const steps = [
    ...[...deleted, ...deleted].map((pod) => () => tryCni('DEL', callFor(pod))),
    ...Array.from({ length: 8 }, () => () => tryCni('GC', { conf: gcConf })),
  ]
  await expectSuccess(inParallel(shuffled(steps), atOnce, (step) => step()))
  expect(await names()).toEqual(kept.map(({ containerId }) => containerId).sort())
  expect(await traces()).toEqual(tracesOf(podCount - deleted.length - collected.length))
  await expectSuccess(inParallel(shuffled(kept), atOnce, (pod) => tryCni('DEL', callFor(pod))))
  expect(await traces()).toEqual(tracesOf(0))
})

async function names(): Promise<string[]> {
  return (await mesh.status()).pods.map(({ containerId }) => containerId).sort()
}

test('two ADDs of the same attachment at once: both succeed, and it is registered once', async () => {
  const some = pods.slice(0, 8)
  const added = inParallel([...some, ...some, ...some], 12, (pod) => tryCni('ADD', callFor(pod)))
  await expectSuccess(added)
  expect(await traces()).toEqual(tracesOf(some.length))
  expect((await mesh.status()).pods.filter(({ alive }) => !alive)).toEqual([])
})

test('ADDs of several attachments of one netns at once share one link', async () => {
  const [pod] = pods
  if (!pod) throw new Error('no pod')
  const ids = Array.from({ length: 8 }, (_, i) => `shared-${i}`)
  const calls = ids.map((containerId) => ({ ...callFor(pod), containerId }))
  const added = inParallel(calls, 8, (call) => tryCni('ADD', call))
  await expectSuccess(added)
  expect(await traces()).toEqual({ ...tracesOf(1), attachments: ids.length })
  // Whichever goes first, the pod stays captured until the last one.
  for (const [i, call] of shuffled(calls).entries()) {
    expect((await mesh.status()).pods.filter(({ alive }) => alive)).toHaveLength(ids.length - i)
    await cni('DEL', call)
  }
  expect(await traces()).toEqual(tracesOf(0))
})

test('DEL while ADD runs: the attachment is there whole or not at all', { timeout: 120_000 }, async () => {
  for (let round = 0; round < 5; round++) {
    const some = pods.slice(round * 20, round * 20 + 20)
    const outcomes = inParallel(
      some.flatMap(
        (pod) =>
          [
            ['ADD', pod],
            ['DEL', pod],
          ] as const,
      ),
      20,
      ([command, pod]) => tryCni(command, callFor(pod)),
    )
    await expectSuccess(outcomes)
    const left = await mesh.status()
    expect(left.pods.filter(({ alive }) => !alive)).toEqual([])
    expect(await traces()).toEqual(tracesOf(left.pods.length))
    for (const pod of some) await cni('DEL', callFor(pod))
    expect(await traces()).toEqual(tracesOf(0))
  }
})

test('an ADD waits for nobody but the writer of its own netns', async () => {
  const [held, free] = pods
  if (!held || !free) throw new Error('two pods expected')
  let waiting: Promise<CniOutcome>
  {
    using writer = OpenNetns.open(held.netns)
    writer.lock()
    waiting = tryCni('ADD', callFor(held))
    await cni('ADD', callFor(free))
    expect(await names()).toEqual([free.containerId])
  }
  expect((await waiting).code).toBe(0)
  expect(await names()).toEqual([held.containerId, free.containerId])
})
