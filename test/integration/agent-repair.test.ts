// SPDX-License-Identifier: Apache-2.0
/** What breaks on the node while the agent runs is put right by the next comparison, told once, and counted. */
import { readdirSync, rmSync } from 'node:fs'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { Store } from '../../src/bpf/store.ts'
import { attachmentPinName, pinPaths } from '../../src/linux/bpffs.ts'
import { annotated, isCaptured, repairs } from '../support/agent-checks.ts'
import { AgentMesh, type MeshPod } from '../support/agent-mesh.ts'
import { cni } from '../support/ambridge.ts'
import { waitFor } from '../support/exec.ts'
import { endpoint } from '../support/mesh.ts'
import { type LanHost, Netns } from '../support/netns.ts'
import { connect, type SockServer } from '../support/sock.ts'
import type { ZtunnelStandin } from '../support/standin.ts'

let field: AgentMesh
let far: LanHost
let ztunnel: ZtunnelStandin
let pod: MeshPod
let app: SockServer
let before: Record<string, number>
/** A cookie that no netns has. */
const nobody = 1n << 62n

beforeAll(async () => {
  field = await AgentMesh.create({ hosts: 2, agent: { reconcileSeconds: 1 } })
  far = field.mesh.host(1)
  await field.mesh.serve(far, 'far', [8080])
  ztunnel = await field.ztunnel()
  await ztunnel.waitForSnapshot()
  pod = await field.started(0, { namespace: 'mesh' })
  await annotated(pod, 'enabled')
  app = await field.mesh.serve(pod.host, 'app', [9090])
})
beforeEach(async () => {
  before = await repairs(field.agent)
})
afterAll(() => field?.[Symbol.asyncDispose]())

const paths = () => pinPaths(field.mesh.bpffs)
const linkPin = () => `${paths().netns}/${attachmentPinName(pod.containerId, 'eth0')}`
const told = () => field.agent.log().filter(({ level }) => level === 'warn' || level === 'error')

/** What was repaired in this test; still so after two more comparisons. */
async function repaired(kinds: Record<string, number>): Promise<void> {
  const since = async () => {
    const now = await repairs(field.agent)
    const counts = Object.entries(now).map(([kind, count]) => [kind, count - (before[kind] ?? 0)] as const)
    return Object.fromEntries(counts.filter(([kind, count]) => count > 0 && kind !== 'entries'))
  }
  await waitFor('the repair', async () => Object.keys(await since()).length > 0)
  await comparisons(2)
  expect(await since()).toEqual(kinds)
}

/** Waits for as many: each takes away an entry of a netns that is not there. */
async function comparisons(count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    using store = new Store(paths().maps)
    store.pending.insert(nobody, 0n)
    await waitFor('a comparison', () => store.pending.get(nobody) === undefined)
  }
}

/** Inbound and outbound. */
async function expectCapture(): Promise<void> {
  expect(await isCaptured(pod, far)).toBe(true)
  const inbound = await connect(field.mesh.at(far), pod.host.ipv4, 9090)
  expect(inbound).toMatchObject({ ok: true, peer: endpoint(pod.host.ipv4, 9090) })
  expect(ztunnel.connections().at(-1)).toMatchObject({ listener: 15006, workload: pod.uid })
}

test('nothing is repaired where nothing is broken', async () => {
  await comparisons(2)
  await expectCapture()
  expect(await repairs(field.agent)).toEqual({ entries: 2 })
  expect(told().map(({ kind }) => kind)).toEqual(['entries', 'entries'])
})

describe('of a pod', () => {
  test('the link to its netns', async () => {
    rmSync(linkPin())
    await repaired({ registration: 1 })
    expect(readdirSync(paths().netns)).toEqual([attachmentPinName(pod.containerId, 'eth0')])
    await expectCapture()
  })

  test('its entry in the map of pods', async () => {
    using store = new Store(paths().maps)
    const [attachment] = store.attachments.entries()
    store.pods.delete(attachment?.[1].netns ?? 0n)
    await repaired({ registration: 1 })
    await expectCapture()
  })

  test('its whole registration', async () => {
    await pod.del()
    await repaired({ registration: 1 })
    await expectCapture()
  })
})

test('a link of the node', async () => {
  const [link = ''] = readdirSync(paths().links).filter((name) => name.startsWith('connect4-'))
  rmSync(`${paths().links}/${link}`)
  await repaired({ link: 1 })
  expect(told().filter(({ subject }) => subject === link)).toMatchObject([
    { level: 'warn', message: 'repaired', module: 'reconcile', kind: 'link', detail: 'attached' },
  ])
  await expectCapture()
})

test('everything, after an unload: traffic flows again, and ztunnel was not started again', async () => {
  await field.mesh.ambridge('unload')
  await waitFor('the listeners', async () => (await repairs(field.agent))['listener'])
  await comparisons(1)
  await expectCapture()
  expect(ztunnel.zdsEvents().filter(({ what }) => what === 'connected')).toHaveLength(1)
  expect(await repairs(field.agent)).toMatchObject({ program: 1, registration: expect.any(Number) })
  expect(pod.redirection()).toBe('enabled')
})

test('an attachment whose netns is gone', async () => {
  const netns = await Netns.create()
  await cni('ADD', { containerId: 'gone', ifname: 'eth0', netns: netns.path, conf: field.mesh.conf() })
  await netns[Symbol.asyncDispose]()
  await repaired({ attachment: 1 })
  expect((await field.mesh.status()).pods.map(({ containerId }) => containerId)).toEqual([pod.containerId])
})

test('the application was there all the time', () => {
  expect(app.daemon.hasExited()).toBe(false)
})
