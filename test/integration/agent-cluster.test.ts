// SPDX-License-Identifier: Apache-2.0
/** The agent and the API server: what is missed while it is away, what it refuses, and in what order it is told. */
import { readFileSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { annotated, errorOf, isCaptured, isDel, noLabel, relabel, servedBy } from '../support/agent-checks.ts'
import { AgentMesh, ambient, type MeshPod, type PodOptions, redirection } from '../support/agent-mesh.ts'
import { waitFor } from '../support/exec.ts'
import type { LanHost } from '../support/netns.ts'
import type { ZtunnelStandin } from '../support/standin.ts'

let field: AgentMesh
let far: LanHost
let ztunnel: ZtunnelStandin
let perTest = new AsyncDisposableStack()

beforeAll(async () => {
  field = await AgentMesh.create({ hosts: 4, agent: { reconcileSeconds: 1 } })
  far = field.mesh.host(3)
  await field.mesh.serve(far, 'far', [8080])
  ztunnel = await field.ztunnel()
  await ztunnel.waitForSnapshot()
})
afterAll(() => field?.[Symbol.asyncDispose]())
afterEach(async () => {
  field.api.heal()
  const ended = perTest
  perTest = new AsyncDisposableStack()
  await ended.disposeAsync()
})

/** Taken away after the test. */
async function pod(index: number, options: PodOptions = {}): Promise<MeshPod> {
  const made = perTest.use(await field.pod(index, options))
  perTest.defer(async () => {
    if (field.api.pods.get(made)?.metadata.uid === made.uid) field.api.pods.delete(made)
    await forgets(made)
    await made.del()
  })
  return made
}

async function started(index: number, options: PodOptions = {}): Promise<MeshPod> {
  const made = await pod(index, options)
  expect(await made.add()).toMatchObject({ code: 0 })
  made.run()
  return made
}

const wroteDown = (text: string) => readFileSync(field.agent.enrollmentFile, 'utf8').includes(text)
const knows = ({ uid }: MeshPod) => waitFor('the agent knows the pod', () => wroteDown(uid))
/** It may have to wait for its next attempt to follow the API server. */
const forgets = ({ uid }: MeshPod) =>
  waitFor('the agent forgets the pod', () => !wroteDown(uid) && !servedBy(ztunnel).includes(uid), {
    timeoutMs: 20_000,
  })

const registered = async () => (await field.mesh.status()).pods.map(({ uid }) => uid)
const directReads = () => field.agent.metric('ambridge_api_direct_reads_total')

/** The agent learns nothing until the API server heals; what it asks for by name is answered. */
function blind(): void {
  field.api.fail({ verb: 'list', status: 500 })
  field.api.fail({ verb: 'watch', status: 500 })
  field.api.dropWatches()
}

describe('changes in between', () => {
  const ways: readonly (readonly [string, (change: () => void) => Promise<void> | void])[] = [
    [
      'a watch that breaks',
      (change) => {
        blind()
        change()
        field.api.heal()
      },
    ],
    [
      'a watch that has expired',
      (change) => {
        blind()
        change()
        field.api.expire('event')
        field.api.heal()
      },
    ],
    [
      'a restart of the API server',
      async (change) => {
        await field.api.down()
        change()
        await field.api.up()
      },
    ],
    ...[401, 403, 429, 503].map((status): [string, (change: () => void) => Promise<void>] => [
      `status ${status}`,
      async (change) => {
        field.api.fail({ status })
        field.api.dropWatches()
        change()
        await field.agent.waitForLog('cannot follow the API server', ({ error = '' }) =>
          error.includes(`answered ${status}`),
        )
        field.api.heal()
      },
    ]),
  ]
  test.for(ways)(
    'are seen after %s: a label that comes, one that goes, a pod that goes',
    async ([, during]) => {
      const [coming, going, gone] = [
        await started(0),
        await started(1, { labels: ambient }),
        await started(2, { labels: ambient }),
      ]
      await Promise.all([annotated(going, 'enabled'), annotated(gone, 'enabled')])
      await during(() => {
        relabel(field, coming, ambient)
        relabel(field, going, noLabel)
        field.api.pods.delete(gone)
      })
      await annotated(coming, 'enabled')
      await annotated(going, undefined)
      await ztunnel.waitForZds(isDel(going))
      await ztunnel.waitForZds(isDel(gone))
      expect(await isCaptured(coming, far)).toBe(true)
      expect(await isCaptured(going, far)).toBe(false)
      // Its sandbox goes with the container runtime's DEL.
      expect(await registered()).toEqual(expect.arrayContaining([coming.uid, gone.uid]))
    },
  )

  test('do not uncapture what runs, and do not hold up pods that are known', async () => {
    const running = await started(0, { labels: ambient })
    await annotated(running, 'enabled')
    const known = await pod(1, { labels: ambient })
    await knows(known)
    await field.api.down()
    try {
      expect(await known.add()).toMatchObject({ code: 0 })
      expect(await isCaptured(known, far)).toBe(true)
      expect(await isCaptured(running, far)).toBe(true)
      await field.agent.waitForLog('pod is not as it should be', ({ uid }) => uid === known.uid)
      expect(known.redirection()).toBeUndefined()
    } finally {
      await field.api.up()
    }
    await annotated(known, 'enabled')
  })
})

describe('a pod that the watch has not told of yet', () => {
  test('is read once for its ADD, and stays in the mesh', async () => {
    blind()
    const made = await pod(0, { labels: ambient })
    const before = await directReads()
    expect(await made.add()).toMatchObject({ code: 0 })
    expect(await directReads()).toBeLessThanOrEqual(before + 2)
    await annotated(made, 'enabled')
    // Everything is compared in between.
    const reconciled = await directReads()
    await waitFor('a reconciliation', async () => (await directReads()) > reconciled)
    expect(await isCaptured(made, far)).toBe(true)
    expect(ztunnel.zdsEvents().filter(isDel(made))).toEqual([])
    field.api.heal()
    await knows(made)
    expect(await isCaptured(made, far)).toBe(true)
  })

  test('and that is deleted before it does, is dropped', async () => {
    blind()
    const made = await pod(0, { labels: ambient })
    expect(await made.add()).toMatchObject({ code: 0 })
    field.api.pods.delete(made)
    await ztunnel.waitForZds(isDel(made))
  })

  test('cannot be added while the API server refuses: code 11, with its reason', async () => {
    blind()
    const made = await pod(0, { labels: ambient })
    field.api.fail({ verb: 'get', status: 403 })
    const { code, msg, details } = errorOf(await made.add())
    expect({ code, msg }).toEqual({ code: 11, msg: `cannot tell whether pod shop/${made.name} is enrolled` })
    expect(details).toMatch(/answered 403 Forbidden.*"get pods"/)
    expect(await registered()).not.toContain(made.uid)
  })
})

test('a newer pod of the same name is another pod', async () => {
  const old = await started(0, { name: 'web-0', labels: ambient })
  await annotated(old, 'enabled')
  field.api.pods.delete(old)
  const young = await pod(1, { name: 'web-0', labels: ambient })
  expect(errorOf(await old.add())).toMatchObject({
    code: 11,
    details: expect.stringContaining(
      `pod shop/web-0 has uid ${young.uid}, the container runtime starts ${old.uid}`,
    ),
  })
  expect(await young.add()).toMatchObject({ code: 0 })
  expect(await old.del()).toMatchObject({ code: 0 })
  await ztunnel.waitForZds(isDel(old))
  await annotated(young, 'enabled')
  expect(servedBy(ztunnel)).toEqual([young.uid])
  expect(await registered()).toEqual([young.uid])
  expect(await isCaptured(young, far)).toBe(true)
})

test('a namespace that is deleted does not uncapture its pods', async () => {
  field.api.namespaces.create({ name: 'brief', labels: ambient })
  const made = await started(0, { namespace: 'brief' })
  await annotated(made, 'enabled')
  field.api.namespaces.delete({ name: 'brief' })
  await waitFor(
    'the agent knows',
    () => !readFileSync(field.agent.enrollmentFile, 'utf8').includes('"brief"'),
  )
  expect(await isCaptured(made, far)).toBe(true)
  expect(made.redirection()).toBe('enabled')
})

describe('the annotation', () => {
  const failPatches = () => field.api.fail({ verb: 'patch', status: 500 })
  const patched = () => waitFor('a patch', () => field.api.count('patch') > patches)
  let patches = 0

  test('comes last when a pod is added, and is tried until it is there', async () => {
    const made = await pod(0, { labels: ambient })
    failPatches()
    patches = field.api.count('patch')
    expect(await made.add()).toMatchObject({ code: 0 })
    await patched()
    expect(servedBy(ztunnel)).toContain(made.uid)
    expect(await isCaptured(made, far)).toBe(true)
    expect(made.redirection()).toBeUndefined()
    field.api.heal()
    await annotated(made, 'enabled')
  })

  test('comes last when a running pod is enrolled', async () => {
    const made = await started(0)
    failPatches()
    patches = field.api.count('patch')
    relabel(field, made, ambient)
    await patched()
    expect(servedBy(ztunnel)).toContain(made.uid)
    expect(await isCaptured(made, far)).toBe(true)
    field.api.heal()
    await annotated(made, 'enabled')
  })

  test('goes first when a pod is withdrawn', async () => {
    const made = await started(0, { labels: ambient })
    await annotated(made, 'enabled')
    failPatches()
    patches = field.api.count('patch')
    relabel(field, made, noLabel)
    await patched()
    await field.agent.waitForLog('pod is not as it should be', ({ uid }) => uid === made.uid)
    expect(await isCaptured(made, far)).toBe(true)
    expect(servedBy(ztunnel)).toContain(made.uid)
    field.api.heal()
    await ztunnel.waitForZds(isDel(made))
    expect(made.redirection()).toBeUndefined()
    await waitFor('the end of capture', async () => !(await isCaptured(made, far)))
  })

  const annotate = (made: MeshPod, value: string | null) =>
    field.api.pods.update(
      { namespace: made.namespace, name: made.name },
      { metadata: { annotations: { [redirection]: value } } },
    )

  test('is written again when somebody takes it away, or writes something else', async () => {
    const made = await started(0, { labels: ambient })
    for (const value of [null, 'pending', 'nonsense']) {
      await annotated(made, 'enabled')
      annotate(made, value)
    }
    await annotated(made, 'enabled')
  })

  test('is taken from a pod that is not in the mesh; a pod may say "disabled" itself', async () => {
    const made = await started(0)
    annotate(made, 'enabled')
    await annotated(made, undefined)
    annotate(made, 'disabled')
    relabel(field, made, ambient)
    await waitFor('the agent knows', () => wroteDown('disabled'))
    expect(made.redirection()).toBe('disabled')
    expect(await isCaptured(made, far)).toBe(false)
    expect(await registered()).toEqual([])
  })
})
