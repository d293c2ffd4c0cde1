// SPDX-License-Identifier: Apache-2.0
/** Damage that is done by hand is found, and what belongs to nobody is taken back, while ADD and DEL go on. */
import { closeSync, readdirSync, rmSync, statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { attachInbound } from '../../src/bpf/inbound.ts'
import { detachLink, openPin } from '../../src/bpf/link.ts'
import { findOrphans, removeOrphans } from '../../src/bpf/orphans.ts'
import { CgroupRole, PodMode, Store } from '../../src/bpf/store.ts'
import { pinPaths } from '../../src/linux/bpffs.ts'
import { Netns as OpenNetns } from '../../src/linux/netns.ts'
import { enroll } from '../../src/pods/enroll.ts'
import { removeLeftovers } from '../../src/pods/repair.ts'
import { type CniCommand, tryCni } from '../support/ambridge.ts'
import { run, waitFor } from '../support/exec.ts'
import { inspectNode } from '../support/inspect-node.ts'
import { type Enrolled, type Host, Mesh, watch } from '../support/mesh.ts'
import { type LanHost, Netns } from '../support/netns.ts'
import { connect, type OwnedDaemon, startOwned } from '../support/sock.ts'

const nothing = { problems: [], attachments: [], pins: [], entries: [] }

let mesh: Mesh
let pod: LanHost
let far: LanHost
let store: Store

beforeEach(async () => {
  mesh = await Mesh.create()
  ;[pod, far] = [mesh.host(0), mesh.host(1)]
  store = new Store(pinPaths(mesh.bpffs).maps)
})
afterEach(async () => {
  store?.[Symbol.dispose]()
  await mesh?.dispose()
})

const inspect = () => inspectNode(mesh.bpffs)
const repair = () => removeLeftovers(mesh.bpffs)
const pinOf = (name: string) => `${mesh.bpffs}/netns/${name}`
const nameOf = ({ containerId, ifname }: Enrolled) => `${containerId}:${ifname}`

function cookieOf({ netns }: Host): bigint {
  using opened = OpenNetns.open(netns.path)
  return opened.cookie()
}

/** Every entry and pin that is there for pods. */
function traces(): unknown {
  const { pods, podAddrs, rules, cgroups, attachments, pending, counters, listenerNext } = store
  const maps = { pods, podAddrs, rules, cgroups, attachments, pending, counters, listenerNext }
  const keys = Object.entries(maps).map(([name, map]) => [name, map.keys()])
  const pins = ['netns', 'guard'].map((dir) => readdirSync(`${mesh.bpffs}/${dir}`).sort())
  return { ...Object.fromEntries(keys), pins }
}

/** A link that nobody has registered. */
function attachTo({ netns }: Host, pinPath: string): void {
  using target = OpenNetns.open(netns.path)
  const mapsDir = pinPaths(mesh.bpffs).maps
  attachInbound({ netnsFd: target.fd, cookie: target.cookie(), mode: PodMode.ambient, pinPath, mapsDir })
}

async function removeNetns({ netns }: LanHost): Promise<void> {
  await netns.dispose()
}

test('a node that is as it should be is left as it is', async () => {
  await mesh.enroll(pod)
  await mesh.enroll(far, { annotations: { 'ambient.istio.io/dns-capture': 'false' } })
  const standin = await mesh.startStandin()
  // It is enrolled later.
  await using early = await Netns.create()
  await standin.add(early.path)
  await mesh.serve(far, 'far', [8080])
  expect(await connect(mesh.at(pod), far.ipv4, 8080)).toMatchObject({ ok: true })
  const before = traces()
  expect(before).toMatchObject({
    listenerNext: expect.arrayContaining([expect.objectContaining({ netns: cookieOf({ netns: early }) })]),
  })
  expect(inspect()).toEqual(nothing)
  expect(repair()).toEqual([])
  expect(traces()).toEqual(before)
  await standin.del(early.path)
})

describe('programs of the node', () => {
  const links = () => readdirSync(`${mesh.bpffs}/links`)

  test('that are severed are named, until they are loaded again', async () => {
    const severed = links().filter((name) => /^(connect4|sockops)-/.test(name))
    for (const name of severed) {
      const link = openPin(`${mesh.bpffs}/links/${name}`)
      detachLink(link)
      closeSync(link)
    }
    const problem = (name: string) => ({ kind: 'link', subject: name, detail: 'its cgroup is gone' })
    expect(inspect().problems).toEqual(severed.map(problem))
    await mesh.load()
    expect(inspect()).toEqual(nothing)
  })

  test('that are attached no more are told', async () => {
    for (const name of links()) if (name.startsWith('connect6-')) rmSync(`${mesh.bpffs}/links/${name}`)
    const detail = 'eBPF program connect6 is attached to no cgroup that is there'
    expect(inspect().problems).toEqual([{ kind: 'programs', subject: mesh.bpffs, detail }])
    await mesh.load()
    expect(inspect()).toEqual(nothing)
  })

  test('that are not loaded are told, and there is nothing to take back', async () => {
    await mesh.ambridge('unload')
    expect(inspect()).toMatchObject({
      ...nothing,
      problems: [{ kind: 'programs', subject: mesh.bpffs, detail: /not loaded/ }],
    })
    expect(repair()).toEqual([])
    await mesh.load()
  })
})

describe('an attachment', () => {
  test('whose netns is gone is withdrawn', async () => {
    const before = traces()
    const enrolled = await mesh.enroll(pod)
    const cookie = cookieOf(pod)
    await removeNetns(pod)
    const key = { containerId: enrolled.containerId, ifname: 'eth0' }
    const lost = { key, netns: cookie, link: 'severed', lives: false }
    await waitFor('the end of the netns', () => inspect().attachments.length > 0)
    expect(inspect()).toMatchObject({ ...nothing, attachments: [lost] })
    expect(repair()).toEqual([
      { kind: 'attachment', subject: nameOf(enrolled), detail: expect.stringContaining('is gone') },
    ])
    expect(traces()).toEqual(before)
    expect(repair()).toEqual([])
  })

  test('whose netns is gone, and whose ADD did not get to the link, is withdrawn', async () => {
    const before = traces()
    const enrolled = await mesh.enroll(pod)
    rmSync(pinOf(nameOf(enrolled)))
    expect(inspect().attachments).toMatchObject([{ link: 'missing', lives: true }])
    expect(repair()).toEqual([])
    await removeNetns(pod)
    expect(inspect().attachments).toMatchObject([{ link: 'missing', lives: false }])
    expect(repair()).toMatchObject([{ kind: 'attachment', subject: nameOf(enrolled) }])
    expect(traces()).toEqual(before)
  })

  test.for(['missing', 'severed'] as const)(
    'whose netns lives, with a link that is %s, waits to be enrolled again',
    async (state) => {
      const standin = await mesh.startStandin()
      await mesh.serve(far, 'far', [8080])
      const enrolled = await mesh.enroll(pod)
      const pin = pinOf(nameOf(enrolled))
      if (state === 'missing') rmSync(pin)
      else {
        const link = openPin(pin)
        detachLink(link)
        closeSync(link)
      }
      const before = traces()
      expect(inspect().attachments).toMatchObject([{ link: state, lives: true, netns: cookieOf(pod) }])
      expect(repair()).toEqual([])
      expect(traces()).toEqual(before)

      using netns = OpenNetns.open(pod.netns.path)
      const { containerId, ifname } = enrolled
      const cookie = enroll(
        {
          key: { containerId, ifname },
          netns,
          allowOwnNetns: false,
          addresses: [pod.ipv4, pod.ipv6],
          pod: { uid: '', namespace: '', name: '' },
          policy: { mode: 'ambient', dnsCapture: true, bypassInbound: false, egressGuard: false },
        },
        mesh.bpffs,
      )
      expect(cookie).toBe(netns.cookie())
      // The caller's is still open, and not locked.
      expect((await run('flock', ['-n', pod.netns.path, 'echo', 'free'])).trim()).toBe('free')
      expect(inspect()).toEqual(nothing)
      const connections = watch(standin)
      expect(await connect(mesh.at(pod), far.ipv4, 8080)).toMatchObject({ ok: true })
      expect(connections()).toHaveLength(1)
    },
  )

  test('lives by a process alone, too', async () => {
    const enrolled = await mesh.enroll(pod)
    const owned = await startOwned('app', mesh.at(pod), ['sleep', '600'])
    await waitFor(
      'sleep',
      () => statSync(`/proc/${owned.daemon.pid}/ns/net`).ino === statSync(pod.netns.path).ino,
    )
    rmSync(pinOf(nameOf(enrolled)))
    await removeNetns(pod)
    expect(inspect().attachments).toMatchObject([{ link: 'missing', lives: true }])
    await owned.stop()
    await waitFor('the end of the process', () => inspect().attachments[0]?.lives === false)
  })

  test('that is being added is not taken for one that is lost, although nothing else shows its netns', async () => {
    const enrolled = await mesh.enroll(pod)
    rmSync(pinOf(nameOf(enrolled)))
    using adding = OpenNetns.open(pod.netns.path)
    await removeNetns(pod)
    adding.lock()
    expect(inspect().attachments).toMatchObject([{ link: 'missing', lives: true }])
    expect(repair()).toEqual([])
  })

  test('of a netns that another one has the inode of is not taken for alive', async () => {
    const enrolled = await mesh.enroll(pod)
    const key = { containerId: enrolled.containerId, ifname: 'eth0' }
    const attachment = store.attachments.get(key)
    if (attachment === undefined) throw new Error('not registered')
    store.attachments.set(key, { ...attachment, netns: attachment.netns + 1_000_000n })
    rmSync(pinOf(nameOf(enrolled)))
    expect(inspect().attachments).toMatchObject([{ link: 'missing', lives: false }])
  })
})

describe('a pin', () => {
  test('that belongs to no attachment is removed', async () => {
    await mesh.enroll(far)
    const before = traces()
    const names = [pinOf('nobody:eth0'), pinOf('other'), `${mesh.bpffs}/guard/nobody:eth0@3`]
    for (const name of names) attachTo(pod, name)
    expect(inspect()).toEqual({ ...nothing, pins: expect.arrayContaining(names) })
    expect(repair()).toMatchObject(
      ['nobody:eth0', 'other', 'nobody:eth0@3'].map((subject) => ({ kind: 'pin', subject })),
    )
    expect(traces()).toEqual(before)
  })

  test('of a second link to the netns of a pod is removed, and the pod stays captured', async () => {
    const enrolled = await mesh.enroll(pod)
    attachTo(pod, pinOf('nobody:eth0'))
    expect(repair()).toMatchObject([{ kind: 'pin', subject: 'nobody:eth0' }])
    expect(await mesh.statusOf(enrolled)).toMatchObject({ alive: true, link: nameOf(enrolled) })
    expect(inspect()).toEqual(nothing)
  })

  test('that a DEL did not get to rename is given to the attachment that shares it', async () => {
    const before = traces()
    const eth0 = await mesh.enroll(pod)
    const net1 = await mesh.enroll(pod, { ifname: 'net1' })
    store.attachments.delete({ containerId: eth0.containerId, ifname: 'eth0' })
    expect(inspect()).toMatchObject({ pins: [pinOf(nameOf(eth0))] })
    expect(repair()).toMatchObject([
      { kind: 'pin', subject: nameOf(eth0), detail: expect.stringContaining(nameOf(net1)) },
    ])
    expect(inspect()).toEqual(nothing)
    await mesh.withdraw(net1)
    expect(traces()).toEqual(before)
  })

  test('of a DEL that is at work is left to it', async () => {
    const eth0 = await mesh.enroll(pod)
    await mesh.enroll(pod, { ifname: 'net1' })
    const key = { containerId: eth0.containerId, ifname: 'eth0' }
    const attachment = store.attachments.get(key)
    store.attachments.delete(key)
    using deleting = OpenNetns.open(pod.netns.path)
    deleting.lock()
    expect(repair()).toEqual([])
    expect(readdirSync(`${mesh.bpffs}/netns`)).toEqual([nameOf(eth0)])
    if (attachment) store.attachments.set(key, attachment)
  })
})

describe('entries', () => {
  const stranger = 1n << 60n

  /** In every map that has entries of pods. */
  function leave(netns: bigint): void {
    const [known] = store.pods.entries()
    if (known === undefined) throw new Error('no pod')
    store.pods.set(netns, known[1])
    store.podAddrs.set({ netns, addr: '192.0.2.1' }, netns)
    store.podAddrs.set({ netns: 0n, addr: '192.0.2.1' }, netns)
    store.cgroups.set(1n << 61n, { netns, role: CgroupRole.pod, level: 1 })
    store.pending.set(netns, 3n)
    const [counter] = store.counters.entries()
    if (counter === undefined) throw new Error('nothing is counted')
    store.counters.set({ netns, outcome: 1 }, counter[1])
    store.listenerNext.set({ netns, port: 15001, family: 4, slot: 0 }, 1)
  }

  beforeEach(async () => {
    await mesh.enroll(pod)
    await mesh.startStandin()
    await connect(mesh.at(pod), far.ipv4, 8080)
  })

  test('without an attachment are removed, and no other', () => {
    const before = traces()
    leave(stranger)
    const maps = ['pods', 'pod_addrs', 'pod_addrs', 'cgroups', 'pending', 'counters', 'listener_next']
    expect(inspect()).toEqual({ ...nothing, entries: maps.map((map) => ({ map, netns: stranger })) })
    const names = [...new Set(maps)].join(', ')
    expect(repair()).toEqual([
      { kind: 'entries', subject: `netns ${stranger}`, detail: `7 removed, without an attachment: ${names}` },
    ])
    expect(traces()).toEqual(before)
  })

  test('of the proxy that pods share are its own', () => {
    const settings = store.settings.get(0)
    if (settings === undefined) throw new Error('no settings')
    store.settings.set(0, { ...settings, sharedNetns: stranger })
    leave(stranger)
    expect(repair()).toEqual([])
  })

  test('of a pod that is registered after they were found stay as that made them', async () => {
    leave(cookieOf(far))
    const found = findOrphans(store, pinPaths(mesh.bpffs).maps)
    expect(found).toHaveLength(7)
    const enrolled = await mesh.enroll(far)
    const before = traces()
    const known = store.pods.entries()
    expect(removeOrphans(store, found)).toEqual([])
    expect(traces()).toEqual(before)
    expect(store.pods.entries()).toEqual(known)
    expect(await mesh.statusOf(enrolled)).toMatchObject({ alive: true })
  })

  test("that are another pod's by then stay", async () => {
    store.podAddrs.set({ netns: 0n, addr: far.ipv4 }, stranger)
    const found = findOrphans(store, pinPaths(mesh.bpffs).maps)
    await mesh.enroll(far)
    expect(removeOrphans(store, found)).toEqual([])
    expect(store.podAddrs.get({ netns: 0n, addr: far.ipv4 })).toBe(cookieOf(far))
  })
})

const repairModule = fileURLToPath(new URL('../../src/pods/repair.ts', import.meta.url))

/** A process that does nothing else, before all others: it is to get in between. */
function startRepairing(): Promise<OwnedDaemon> {
  const script = `
    import { removeLeftovers } from '${repairModule}'
    setInterval(() => {
      for (const finding of removeLeftovers('${mesh.bpffs}')) console.log(JSON.stringify(finding))
    }, 1)
    console.log('started')`
  const node = [process.execPath, '--input-type=module', '-e', script]
  return startOwned('repairs', {}, ['nice', '-n', '-15', ...node])
}

test('ADDs and DELs at the same time are not harmed', async () => {
  const hosts = await Promise.all(Array.from({ length: 8 }, (_, i) => Netns.create(`crowd${i}`)))
  const repairing = await startRepairing()
  try {
    await waitFor('the start of repairs', () => repairing.log() !== '')
    const call = async (command: CniCommand) => {
      const calls = hosts.flatMap(({ name, path }) => {
        return ['eth0', 'net1'].map((ifname) => {
          return tryCni(command, { containerId: name, netns: path, ifname, conf: mesh.conf() })
        })
      })
      expect((await Promise.all(calls)).filter(({ code }) => code !== 0)).toEqual([])
    }
    const before = traces()
    for (let round = 0; round < 3; round++) {
      await call('ADD')
      expect(inspect()).toEqual(nothing)
      const { pods } = await mesh.status()
      expect(pods.filter(({ alive }) => alive)).toHaveLength(2 * hosts.length)
      await call('DEL')
      expect(traces()).toEqual(before)
    }
    expect(repairing.log()).toBe('started\n')
  } finally {
    await repairing.stop()
    for (const netns of hosts) await netns.dispose()
  }
}, 120_000)
