// SPDX-License-Identifier: Apache-2.0
/** From ADD to DEL: what is counted, what DEL removes, and whose it is when names and addresses are used again. */
import { readdirSync, readlinkSync, statSync } from 'node:fs'
import { isDeepStrictEqual } from 'node:util'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { run, waitFor } from '../support/exec.ts'
import { families, type Host, Mesh, watch } from '../support/mesh.ts'
import type { LanHost } from '../support/netns.ts'
import { connect, type OwnedDaemon, SockClient, startOwned, toolPath } from '../support/sock.ts'
import type { ZtunnelStandin } from '../support/standin.ts'

/** Maps whose entries live from ADD to DEL, or shorter. */
const podMaps = [
  ...['pods', 'pod_addrs', 'attachments', 'cgroups', 'rules'],
  ...['pending', 'counters', 'handshakes', 'listeners', 'listener_next'],
]

let mesh: Mesh
let first: LanHost
let second: LanHost
let remote: LanHost
let standin: ZtunnelStandin

beforeEach(async () => {
  mesh = await Mesh.create({ hosts: 3 })
  first = mesh.host(0)
  second = mesh.host(1)
  remote = mesh.host(2)
  standin = await mesh.startStandin()
  await mesh.serve(remote, 'remote', [8080])
})
afterEach(() => mesh?.dispose())

async function isCaptured({ netns }: Host): Promise<boolean> {
  const connections = watch(standin)
  const result = await connect({ netns, cgroupDir: mesh.pods.dir }, remote.ipv4, 8080)
  expect(result).toMatchObject({ ok: true, reply: { server: 'remote' } })
  return connections().some((each) => each.peer === result.local && each.netns === netns.path)
}

/** Everything that is there for pods: maps as bpftool reads them, in no order, and pins of links. */
async function podState(): Promise<Record<string, unknown>> {
  const dumps = podMaps.map(async (map): Promise<[string, unknown]> => {
    const text = await run('bpftool', ['-j', 'map', 'dump', 'pinned', `${mesh.bpffs}/maps/${map}`])
    const entries = JSON.parse(text) as { key: unknown; value: unknown }[]
    return [map, entries.map((entry) => JSON.stringify(entry)).sort()]
  })
  const pins = readdirSync(`${mesh.bpffs}/netns`).sort()
  return { ...Object.fromEntries(await Promise.all(dumps)), pins }
}

/** Links of the kernel, pinned or not, to this netns. */
async function linksOf({ netns }: Host): Promise<number> {
  const { ino } = statSync(netns.path)
  const links = JSON.parse(await run('bpftool', ['-j', 'link'])) as { netns_ino?: number }[]
  return links.filter((link) => link.netns_ino === ino).length
}

describe('counters', () => {
  test.for(families)('tell what became of each connection over $name', async ({ key, options }) => {
    const pod = await mesh.enroll(first)
    await mesh.serve(first, 'app', [8080])
    await connect(mesh.at(first), remote[key], 8080, options)
    const outbound = { outboundCaptured: 1, handedToProxy: 1, outboundProxy: 1 }
    expect(await mesh.countersOf(pod)).toEqual(outbound)

    await connect(mesh.at(remote), first[key], 8080, options)
    const inbound = { inboundCaptured: 1, inboundFromProxy: 1, sourceKept: 1, outboundProxy: 2 }
    expect(await mesh.countersOf(pod)).toEqual({ ...outbound, ...inbound })

    await connect(mesh.at(first), first[key], 8080, options)
    const itself = { outboundSelf: 1, inboundSelf: 1 }
    expect(await mesh.countersOf(pod)).toEqual({ ...outbound, ...inbound, ...itself })
  })

  test('belong to one pod', async () => {
    const [pod, other] = [await mesh.enroll(first), await mesh.enroll(second)]
    await connect(mesh.at(first), remote.ipv4, 8080)
    expect(await mesh.countersOf(other)).toEqual({})
    expect(await mesh.countersOf(pod)).toMatchObject({ outboundCaptured: 1 })
  })
})

test('a connection waits to be accepted, and not a moment longer', async () => {
  await mesh.enroll(first)
  await mesh.serve(first, 'app', [8080])
  const { pending: idle } = await podState()
  await using outbound = await SockClient.start(mesh.at(first), remote.ipv4, 8080, ['--hold', '1000'])
  await using inbound = await SockClient.start(mesh.at(remote), first.ipv6, 8080, ['--hold', '1000'])
  await using itself = await SockClient.start(mesh.at(first), first.ipv4, 8080, ['--hold', '1000'])
  expect(await podState()).toMatchObject({ handshakes: [], pending: idle })
  for (const client of [outbound, inbound, itself]) expect(await client.isAliveAfterHold()).toBe(true)
})

test('a client that goes away before it is accepted leaves nothing', async () => {
  await mesh.enroll(first)
  const { pending: idle } = await podState()
  const clients = await startUnanswered()
  await clients.stop()
  await waitFor('their end', async () => {
    const { handshakes, pending } = await podState()
    return (handshakes as string[]).length === 0 && isDeepStrictEqual(pending, idle)
  })
})

/** More clients than an accept queue holds: the SYNs of the others are dropped. */
async function startUnanswered(): Promise<OwnedDaemon> {
  await standin.stall()
  const crowd = [await toolPath('sock'), 'connect', remote.ipv4, '8080', '--count', '400', '--no-read']
  const clients = await startOwned('crowd', mesh.at(first), crowd)
  const handshakes = async (): Promise<unknown[]> => (await podState())['handshakes'] as unknown[]
  await waitFor('unanswered connections', async () => (await handshakes()).length >= 32)
  return clients
}

describe('DEL', () => {
  test('removes every map entry and link of the pod, and no other', async () => {
    await mesh.enroll(second)
    await connect(mesh.at(second), remote.ipv4, 8080)
    const before = await podState()
    const pod = await mesh.enroll(first)
    await mesh.serve(first, 'app', [8080])
    for (const key of ['ipv4', 'ipv6'] as const) {
      await connect(mesh.at(first), remote[key], 8080)
      await connect(mesh.at(remote), first[key], 8080)
      await connect(mesh.at(first), first[key], 8080)
    }
    expect(await podState()).not.toEqual(before)
    expect(await linksOf(first)).toBe(1)

    await standin.del(first.netns.path)
    await mesh.withdraw(pod)
    expect(await podState()).toEqual(before)
    expect(await linksOf(first)).toBe(0)
    expect(await isCaptured(first)).toBe(false)
    expect(await isCaptured(second)).toBe(true)
  })

  test('leaves only what the proxy still listens with, when it comes first', async () => {
    const before = await podState()
    const pod = await mesh.enroll(first)
    await connect(mesh.at(first), remote.ipv4, 8080)
    await mesh.withdraw(pod)
    const { listeners: _listening, ...rest } = await podState()
    expect(before).toMatchObject(rest)
    await standin.del(first.netns.path)
    expect(await podState()).toEqual(before)
  })

  test('takes back what connections wait for that nobody has answered', async () => {
    const before = await podState()
    const pod = await mesh.enroll(first)
    const clients = await startUnanswered()
    await mesh.withdraw(pod)
    expect(await podState()).toMatchObject({ handshakes: [], pending: [] })
    await clients.stop()
    await standin.del(first.netns.path)
    expect(await podState()).toEqual(before)
  })
})

describe('a second attachment of a pod', () => {
  test('keeps it captured until both are gone, by one link', async () => {
    const eth0 = await mesh.enroll(first)
    await standin.del(first.netns.path)
    const net1 = await mesh.enroll(first, { ifname: 'net1' })
    expect((await mesh.status()).pods.map(({ ifname }) => ifname).sort()).toEqual(['eth0', 'net1'])
    expect(await linksOf(first)).toBe(1)

    const { pods, pod_addrs: addresses } = await podState()
    await mesh.withdraw(eth0)
    expect(await podState()).toMatchObject({ pods, pod_addrs: addresses })
    expect(await mesh.statusOf(net1)).toMatchObject({ alive: true })
    expect(await linksOf(first)).toBe(1)
    expect(await isCaptured(first)).toBe(true)

    await mesh.withdraw(net1)
    expect((await mesh.status()).pods).toEqual([])
    expect(await linksOf(first)).toBe(0)
    expect(await isCaptured(first)).toBe(false)
  })
})

describe('an attachment that was not deleted', () => {
  test('moves to the other netns when it is added there', async () => {
    await mesh.enroll(first, { containerId: 'moving' })
    const moved = await mesh.enroll(second, { containerId: 'moving' })
    expect((await mesh.status()).pods).toMatchObject([
      { containerId: 'moving', netnsInode: String(statSync(second.netns.path).ino), alive: true },
    ])
    expect([await linksOf(first), await linksOf(second)]).toEqual([0, 1])
    expect([await isCaptured(first), await isCaptured(second)]).toEqual([false, true])
    expect((await mesh.statusOf(moved))?.addresses).toContain(second.ipv4)
  })

  test('is deleted late, when another sandbox has its address', async () => {
    const old = await mesh.enroll(first, { containerId: 'old' })
    const reused = [`${first.ipv4}/24`, `${first.ipv6}/64`]
    await first.netns.ip(reused.map((address) => `addr del ${address} dev eth0`))
    await second.netns.ip(reused.map((address) => `addr add ${address} dev eth0`))
    const fresh = await mesh.enroll(second, { containerId: 'new', assigned: reused })
    await mesh.withdraw(old)
    const addrs = (await podState())['pod_addrs'] as string[]
    // Of the node: {netns 0, address}.
    const ofNode = addrs.filter((entry) => /^\{"key":\["0x00"(,"0x00"){7}/.test(entry))
    expect(ofNode).toHaveLength(4)
    const all = [first.ipv4, first.ipv6, second.ipv4, second.ipv6]
    expect((await mesh.statusOf(fresh))?.addresses).toEqual(expect.arrayContaining(all))
    expect(await isCaptured(second)).toBe(true)
  })

  test('is deleted late, when another sandbox has its netns', async () => {
    const old = await mesh.enroll(first, { containerId: 'old' })
    await standin.del(first.netns.path)
    const fresh = await mesh.enroll(first, { containerId: 'new' })
    await mesh.withdraw(old)
    expect(await mesh.statusOf(fresh)).toMatchObject({ alive: true })
    expect(await isCaptured(first)).toBe(true)
  })
})

test('a netns of another user namespace, by way of /proc, is enrolled and withdrawn', async () => {
  const before = await podState()
  const owned = await startOwned('rootless', {}, ['unshare', '-Urn', 'sleep', '600'])
  try {
    const { pid } = owned.daemon
    const path = `/proc/${pid}/ns/net`
    await waitFor('the netns of unshare', () => readlinkSync(path) !== readlinkSync('/proc/self/ns/net'))
    await second.netns.run('ip', ['link', 'set', 'eth0', 'netns', String(pid)])
    const rootless = { netns: { name: 'rootless', path } }
    await run('nsenter', [`--net=${path}`, 'ip', '-batch', '-'], {
      input: [
        'link set lo up',
        'link set eth0 up',
        `addr add ${second.ipv4}/24 dev eth0`,
        `addr add ${second.ipv6}/64 dev eth0 nodad`,
      ].join('\n'),
    })
    const pod = await mesh.enroll(rootless)
    expect(await isCaptured(rootless)).toBe(true)
    await using _app = await mesh.serve(rootless, 'app', [8080])
    const inbound = await connect(mesh.at(remote), second.ipv6, 8080)
    expect(inbound).toMatchObject({ ok: true, reply: { server: 'app' } })
    expect(inbound.reply?.peer).toContain(`[${remote.ipv6}]`)
    await standin.del(path)
    await mesh.withdraw(pod)
    expect(await podState()).toEqual(before)
  } finally {
    await owned.stop()
  }
})
