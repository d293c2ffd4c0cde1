// SPDX-License-Identifier: Apache-2.0
/** The agent and its ztunnels: those that are not there, come, go, hang and refuse; and those that only say that they are one. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import {
  annotated,
  dialUntilStopped,
  errorOf,
  isCaptured,
  isDel,
  isRefused,
  noLabel,
  relabel,
  servedBy,
} from '../support/agent-checks.ts'
import { AgentMesh, ambient, type MeshPod, type PodOptions } from '../support/agent-mesh.ts'
import { waitFor } from '../support/exec.ts'
import type { LanHost } from '../support/netns.ts'
import type { StandinOptions, ZtunnelStandin } from '../support/standin.ts'

let field: AgentMesh
let far: LanHost
let perTest = new AsyncDisposableStack()

beforeAll(async () => {
  field = await AgentMesh.create({ hosts: 4 })
  far = field.mesh.host(3)
  await field.mesh.serve(far, 'far', [8080])
})
afterAll(() => field?.[Symbol.asyncDispose]())
afterEach(async () => {
  const ended = perTest
  perTest = new AsyncDisposableStack()
  await ended.disposeAsync()
  await waitFor('no ztunnel', async () => (await connections()) === 0)
})

const connections = () => field.agent.metric('ambridge_ztunnel_connections')

async function ztunnel(options: StandinOptions = {}): Promise<ZtunnelStandin> {
  return perTest.use(await field.ztunnel(options))
}

/** Taken away after the test. */
async function pod(index: number, options: PodOptions = {}): Promise<MeshPod> {
  return owned(await field.pod(index, options))
}

async function started(index: number, options: PodOptions = {}): Promise<MeshPod> {
  return owned(await field.started(index, options))
}

function owned(made: MeshPod): MeshPod {
  perTest.use(made)
  perTest.defer(async () => {
    await made.del()
    field.api.pods.delete(made)
  })
  return made
}

const registered = async () => (await field.mesh.status()).pods.map(({ uid }) => uid)

/** Fails with code 11, and leaves nothing. */
async function refusedAdd(made: MeshPod): Promise<string> {
  const outcome = await made.add()
  const { code, msg, details } = errorOf(outcome)
  expect({ code, msg }, outcome.stderr).toEqual({ code: 11, msg: `cannot enroll pod mesh/${made.name}` })
  expect(await registered()).not.toContain(made.uid)
  return details
}

describe('without a ztunnel', () => {
  test('ADD fails and leaves nothing', async () => {
    const made = await pod(0, { namespace: 'mesh' })
    expect(await refusedAdd(made)).toMatch(/^no ztunnel is connected; .*ztunnel pod of this node/)
    expect(await field.agent.get('/readyz')).toMatchObject({
      status: 503,
      text: 'not ready: no ztunnel is connected\n',
    })
    // Another ztunnel must not be given what the container runtime was told has failed.
    const late = await ztunnel()
    await late.waitForSnapshot()
    expect(servedBy(late)).toEqual([])
    expect(await field.agent.get('/readyz')).toMatchObject({ status: 200 })
    expect(await made.add()).toMatchObject({ code: 0 })
    await annotated(made, 'enabled')
  })

  test('a running pod that is labelled is captured and refused, until one comes', async () => {
    const made = await started(1, { labels: {} })
    relabel(field, made, ambient)
    await annotated(made, 'pending')
    expect(await isRefused(made, far)).toBe(true)
    const late = await ztunnel()
    await annotated(made, 'enabled')
    expect(await isCaptured(made, far)).toBe(true)
    expect(servedBy(late)).toEqual([made.uid])
  })
})

test('a ztunnel that is started again gets every pod; in between, pods are refused', async () => {
  const first = await ztunnel()
  await first.waitForSnapshot()
  const added = await started(0, { namespace: 'mesh' })
  const labelled = await started(1, { labels: ambient })
  await annotated(labelled, 'enabled')
  await first.stop()
  expect([await isRefused(added, far), await isRefused(labelled, far)]).toEqual([true, true])
  expect([added.redirection(), labelled.redirection()]).toEqual(['enabled', 'enabled'])
  const second = await ztunnel()
  await second.waitForSnapshot()
  expect(servedBy(second).sort()).toEqual([added.uid, labelled.uid].sort())
  expect([await isCaptured(added, far), await isCaptured(labelled, far)]).toEqual([true, true])
  expect([added.redirection(), labelled.redirection()]).toEqual(['enabled', 'enabled'])
})

test('a second ztunnel takes over under load', async () => {
  const old = await ztunnel({ name: 'old' })
  await old.waitForSnapshot()
  const busy = await started(0, { namespace: 'mesh' })
  const going = await started(1, { labels: ambient })
  await annotated(going, 'enabled')
  const load = dialUntilStopped(busy, far)
  const successor = await ztunnel({ name: 'new' })
  await successor.waitForSnapshot()
  const late = await started(2, { namespace: 'mesh' })
  relabel(field, going, noLabel)
  await Promise.all([old.waitForZds(isDel(going)), successor.waitForZds(isDel(going))])
  await old.terminate()
  const before = successor.connections().length
  await waitFor('connections at the successor', () => successor.connections().length > before + 3)
  expect(await load()).toMatchObject({ refused: [], uncaptured: [] })
  expect(old.zdsEvents().some(({ what, uid }) => what === 'add' && uid === late.uid)).toBe(false)
  expect(await isCaptured(late, far)).toBe(true)
})

test('ADD waits for the acknowledgement, and the annotation for ADD', async () => {
  const slow = await ztunnel({ zdsDelayAckMs: 700 })
  await slow.waitForSnapshot()
  const made = await pod(0, { namespace: 'mesh' })
  const adding = made.add()
  await slow.waitForAdd(made.uid)
  expect(made.redirection()).toBeUndefined()
  expect(await adding).toMatchObject({ code: 0 })
  await annotated(made, 'enabled')
})

describe('a ztunnel that does not acknowledge', () => {
  test('is disconnected; ADD fails and leaves nothing', async () => {
    const mute = await ztunnel({ name: 'mute', zdsMute: true })
    await waitFor('the connection', async () => (await connections()) === 1)
    const made = await pod(0, { namespace: 'mesh' })
    expect(await refusedAdd(made)).toMatch(/^ztunnel did not answer within 5000 ms; /)
    await field.agent.waitForLog('ztunnel timed out')
    await mute.stop()
    const sound = await ztunnel()
    await sound.waitForSnapshot()
    expect(servedBy(sound)).toEqual([])
    expect(made.redirection()).toBeUndefined()
  })

  test('keeps a running pod pending', async () => {
    const mute = await ztunnel({ name: 'mute', zdsMute: true })
    await waitFor('the connection', async () => (await connections()) === 1)
    const made = await started(1, { labels: {} })
    relabel(field, made, ambient)
    await annotated(made, 'pending')
    await mute.stop()
    await ztunnel()
    await annotated(made, 'enabled')
    expect(await isCaptured(made, far)).toBe(true)
  })
})

describe('a ztunnel that refuses', () => {
  test('is quoted by ADD, which leaves nothing', async () => {
    const nacks = await ztunnel({ zdsNack: 'no more ports' })
    await nacks.waitForSnapshot()
    const made = await pod(0, { namespace: 'mesh' })
    expect(await refusedAdd(made)).toMatch(/^ztunnel refused: failure to start proxy : no more ports; /)
    await nacks.waitForZds(isDel(made))
    expect(made.redirection()).toBeUndefined()
  })

  test('keeps a running pod pending, captured and refused', async () => {
    const nacks = await ztunnel({ zdsNack: 'no more ports' })
    await nacks.waitForSnapshot()
    const made = await started(1, { labels: {} })
    relabel(field, made, ambient)
    await annotated(made, 'pending')
    expect(await isRefused(made, far)).toBe(true)
    const told = field.agent.log().filter(({ uid }) => uid === made.uid)
    expect(told.filter(({ level }) => level === 'warn')).toMatchObject([
      { message: 'pod is not as it should be', error: expect.stringContaining('no more ports') },
    ])
    await nacks.stop()
    await ztunnel()
    await annotated(made, 'enabled')
    expect(await isCaptured(made, far)).toBe(true)
  })
})
