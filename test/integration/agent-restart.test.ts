// SPDX-License-Identifier: Apache-2.0
/** An agent that is away, and comes back: what runs stays captured, and what has changed meanwhile is seen. */
import { existsSync, rmSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { PodStatus } from '../../installer/programs/status.ts'
import { readEnrollment } from '../../src/agent-api/enrollment-file.ts'
import { nodeName } from '../support/agent.ts'
import {
  annotated,
  dialUntilStopped,
  errorOf,
  isCaptured,
  isDel,
  noLabel,
  relabel,
  repairs,
  servedBy,
} from '../support/agent-checks.ts'
import { AgentMesh, ambient, type MeshPod, type PodOptions } from '../support/agent-mesh.ts'
import { waitFor } from '../support/exec.ts'
import type { LanHost } from '../support/netns.ts'
import type { ZtunnelStandin } from '../support/standin.ts'

let field: AgentMesh
let far: LanHost
let ztunnel: ZtunnelStandin
let perTest = new AsyncDisposableStack()

beforeAll(async () => {
  field = await AgentMesh.create({ hosts: 5 })
  far = field.mesh.host(4)
  await field.mesh.serve(far, 'far', [8080])
  ztunnel = await field.ztunnel()
  await ztunnel.waitForSnapshot()
})
afterAll(() => field?.[Symbol.asyncDispose]())
afterEach(async () => {
  const ended = perTest
  perTest = new AsyncDisposableStack()
  await ended.disposeAsync()
})

async function pod(index: number, options: PodOptions = {}): Promise<MeshPod> {
  const made = perTest.use(await field.pod(index, options))
  perTest.defer(async () => {
    if (field.api.pods.get(made) !== undefined) field.api.pods.delete(made)
    await waitFor('the end of the pod', () => !servedBy(ztunnel).includes(made.uid))
    await made.del()
  })
  return made
}

async function started(index: number, options: PodOptions = {}): Promise<MeshPod> {
  const made = await pod(index, options)
  expect(await made.add()).toMatchObject({ code: 0 })
  made.run()
  if (options.labels !== undefined || options.namespace === 'mesh') await annotated(made, 'enabled')
  return made
}

/** Without what traffic changes. */
async function state(): Promise<Partial<PodStatus>[]> {
  const { pods } = await field.mesh.status()
  return pods.map(({ counters: _, ...rest }) => rest)
}

const snapshots = () => ztunnel.zdsEvents().filter(({ what }) => what === 'snapshot').length
const known = () => readEnrollment(field.agent.enrollmentFile)

/** Starts it again, and waits until ztunnel is with it. */
async function back(): Promise<void> {
  const before = snapshots()
  await field.agent.start()
  await ztunnel.waitForSnapshot(before + 1)
}

describe.for(['stop', 'kill'] as const)('after a %s', (how) => {
  test('pods are what they were: never uncaptured, refused or registered again', async () => {
    const [added, labelled] = [await started(0, { namespace: 'mesh' }), await started(1)]
    relabel(field, labelled, ambient)
    await annotated(labelled, 'enabled')
    const before = await state()
    const load = dialUntilStopped(added, far)
    await field.agent[how]()
    expect(await isCaptured(labelled, far)).toBe(true)
    await back()
    expect(await isCaptured(labelled, far)).toBe(true)
    expect(await load()).toMatchObject({ refused: [], uncaptured: [] })
    expect(await state()).toEqual(before)
    expect(await repairs(field.agent)).toEqual({})
    expect(field.agent.log().filter(({ message }) => message === 'running pod enrolled')).toEqual([])
    expect(servedBy(ztunnel).sort()).toEqual([added.uid, labelled.uid].sort())
    await waitFor('the file', () => known().pods['shop/pod1']?.enroll === true)
    expect(known().pods).toMatchObject({ 'mesh/pod0': { uids: [added.uid], enroll: true } })
  })

  test('what has changed meanwhile is seen', async () => {
    const [coming, going] = [await started(0), await started(1, { labels: ambient })]
    const [gone, undone] = [await started(2, { labels: ambient }), await started(3, { labels: ambient })]
    await field.agent[how]()
    relabel(field, coming, ambient)
    relabel(field, going, noLabel)
    field.api.pods.delete(gone)
    field.api.pods.update(
      { namespace: 'shop', name: undone.name },
      { metadata: { deletionTimestamp: new Date().toISOString() } },
    )
    expect(await undone.del()).toMatchObject({ code: 0 })
    await back()
    await annotated(coming, 'enabled')
    expect(going.redirection()).toBeUndefined()
    expect([await isCaptured(coming, far), await isCaptured(going, far)]).toEqual([true, false])
    // Of the pod that is gone, the sandbox is still there.
    expect((await state()).map(({ uid }) => uid).sort()).toEqual([coming.uid, gone.uid].sort())
    field.api.pods.delete(undone)
    await waitFor('the others are dropped', () => servedBy(ztunnel).join() === coming.uid)
    await waitFor('the enrollment file', () => known().pods[`shop/${coming.name}`]?.enroll === true)
    expect(known().pods[`shop/${going.name}`]?.enroll).toBe(false)
    expect(known().pods[`shop/${gone.name}`]).toBeUndefined()
  })
})

test('a pod whose processes are not found is kept by a ztunnel that has it', async () => {
  const made = await started(0, { labels: ambient })
  await field.agent.kill()
  await made[Symbol.asyncDispose]()
  await back()
  const isKeep = ({ what, uid }: { what: string; uid: string | null }) => what === 'keep' && uid === made.uid
  expect(ztunnel.zdsEvents().filter(isKeep)).toHaveLength(1)
  expect(servedBy(ztunnel)).toEqual([made.uid])
  field.api.pods.delete(made)
  await ztunnel.waitForZds(isDel(made))
})

test('a pod that its start takes out of the mesh is not kept, even if the watch does not tell of that yet', async () => {
  const made = await started(0, { labels: ambient })
  await field.agent.kill()
  relabel(field, made, noLabel)
  field.api.fail({ verb: 'watch', status: 500 })
  try {
    await back()
    expect(made.redirection()).toBeUndefined()
    expect(ztunnel.zdsEvents().filter(({ what, uid }) => what === 'keep' && uid === made.uid)).toEqual([])
    expect(servedBy(ztunnel)).toEqual([])
    expect(await isCaptured(made, far)).toBe(false)
  } finally {
    field.api.heal()
  }
  await waitFor('the watch', () => known().pods[`shop/${made.name}`]?.enroll === false)
})

test('on a node without pods, it writes down that there are none', async () => {
  await field.agent.kill()
  rmSync(field.agent.enrollmentFile)
  // Long after the namespaces.
  field.api.fail({ verb: 'list', resource: 'pods', status: 500, times: 4 })
  await back()
  await waitFor('the file', () => existsSync(field.agent.enrollmentFile))
  expect(known()).toMatchObject({ node: nodeName, pods: {}, namespaces: { shop: {}, mesh: ambient } })
})

test('without agent: pods that are not enrolled start, others wait', async () => {
  const [plain, enrolled] = [await pod(0), await pod(1, { namespace: 'mesh' })]
  await waitFor('the file', () => known().pods['shop/pod0'] && known().pods['mesh/pod1'])
  await field.agent.kill()
  expect(await plain.add()).toMatchObject({ code: 0 })
  expect(errorOf(await enrolled.add())).toMatchObject({ code: 11, msg: 'cannot enroll pod mesh/pod1' })
  const unknown = await pod(2)
  expect(errorOf(await unknown.add())).toMatchObject({
    code: 11,
    msg: 'cannot tell whether pod shop/pod2 is enrolled',
  })
  await back()
  expect(await enrolled.add()).toMatchObject({ code: 0 })
  expect(await unknown.add()).toMatchObject({ code: 0 })
})

test('while the API server is away at its start, it is not ready, and the plugin goes by its file', async () => {
  const [running, plain] = [await started(0, { labels: ambient }), await pod(1)]
  const enrolled = await pod(2, { namespace: 'mesh' })
  await waitFor('the file', () => known().pods['shop/pod1'] && known().pods['mesh/pod2'])
  await field.agent.kill()
  await field.api.down()
  try {
    field.agent.launch()
    await field.agent.waitForLog('cannot follow the API server')
    expect(await field.agent.get('/healthz')).toMatchObject({ status: 200 })
    expect(await field.agent.get('/readyz')).toMatchObject({
      status: 503,
      text: expect.stringContaining('the API server has not told'),
    })
    expect(await isCaptured(running, far)).toBe(true)
    expect(await plain.add()).toMatchObject({ code: 0 })
    expect(errorOf(await enrolled.add())).toMatchObject({ code: 11, msg: 'cannot enroll pod mesh/pod2' })
    expect(running.redirection()).toBe('enabled')
  } finally {
    await field.api.up()
  }
  await field.agent.running()
  await waitFor('ready', async () => (await field.agent.get('/readyz')).status === 200, { timeoutMs: 20_000 })
  expect(await enrolled.add()).toMatchObject({ code: 0 })
  expect(await isCaptured(running, far)).toBe(true)
})

test('stopped while it waits for the API server, it ends', async () => {
  await field.agent.stop()
  await field.api.down()
  try {
    field.agent.launch()
    await field.agent.waitForLog('cannot follow the API server')
    field.agent.signal('SIGTERM')
    expect(await field.agent.ended()).toBe(0)
    expect(field.agent.log().at(-1)).toMatchObject({ message: 'agent stops' })
  } finally {
    await field.api.up()
    await back()
  }
})
