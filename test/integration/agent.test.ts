// SPDX-License-Identifier: Apache-2.0
/** The node agent with real plugin, programs and pods' network namespaces. */
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { AgentMesh, ambient, dataplane, type MeshPod } from '../support/agent-mesh.ts'
import { waitFor } from '../support/exec.ts'
import { endpoint } from '../support/mesh.ts'
import type { LanHost } from '../support/netns.ts'
import { connect } from '../support/sock.ts'
import type { ZtunnelStandin } from '../support/standin.ts'

let field: AgentMesh
let far: LanHost
let ztunnel: ZtunnelStandin

beforeAll(async () => {
  field = await AgentMesh.create({ hosts: 5 })
  far = field.mesh.host(4)
  await field.mesh.serve(far, 'far', [8080])
  ztunnel = await field.ztunnel({ name: 'first' })
  await ztunnel.waitForSnapshot()
})
afterAll(() => field?.[Symbol.asyncDispose]())

/** By what the server sees: the proxy's socket has a port of its own. */
async function isCaptured(pod: MeshPod): Promise<boolean> {
  const result = await connect(pod.at, far.ipv4, 8080)
  expect(result).toMatchObject({ ok: true, peer: endpoint(far.ipv4, 8080) })
  return result.reply?.peer !== result.local
}

function relabel(pod: MeshPod, labels: Record<string, string | null>): void {
  field.api.pods.update(pod, { metadata: { labels } } as never)
}

const annotated = (pod: MeshPod, value: string | undefined) =>
  waitFor(`annotation ${value}`, () => pod.redirection() === value)

describe('a new pod', () => {
  test('of a labelled namespace is served before ADD ends, and annotated', async () => {
    await using pod = await field.pod(0, { namespace: 'mesh' })
    expect(await pod.add()).toMatchObject({ code: 0 })
    const [added] = ztunnel.zdsEvents().filter(({ what, uid }) => what === 'add' && uid === pod.uid)
    expect(added).toMatchObject({ name: pod.name, namespace: 'mesh', service_account: 'default', error: '' })
    expect(await isCaptured(pod)).toBe(true)
    await annotated(pod, 'enabled')
    pod.run()
    expect(await pod.del()).toMatchObject({ code: 0 })
    field.api.pods.delete(pod)
    await ztunnel.waitForZds(({ what, uid }) => what === 'del' && uid === pod.uid)
  })

  test('of another namespace is left alone', async () => {
    await using pod = await field.pod(0, { name: 'plain' })
    expect(await pod.add()).toMatchObject({ code: 0 })
    pod.run()
    expect(await isCaptured(pod)).toBe(false)
    expect(pod.redirection()).toBeUndefined()
    field.api.pods.delete(pod)
  })

  test('that the caches know costs no read of the API server', async () => {
    const reads = () => field.agent.metric('ambridge_api_direct_reads_total')
    const before = await reads()
    await using pod = await field.pod(0, { name: 'known', namespace: 'mesh' })
    await waitFor('the pod in the caches', () => knows('mesh/known'))
    expect(await pod.add()).toMatchObject({ code: 0 })
    expect(await reads()).toBe(before)
    await pod.del()
    field.api.pods.delete(pod)
  })
})

/** What the agent wrote down. */
function knows(pod: string): boolean {
  const { pods } = JSON.parse(readFileSync(field.agent.enrollmentFile, 'utf8')) as { pods: object }
  return pod in pods
}

describe('a running pod', () => {
  test('is enrolled when it is labelled, and withdrawn when the label goes', async () => {
    await using pod = await field.started(1, { name: 'running' })
    expect(await isCaptured(pod)).toBe(false)
    relabel(pod, ambient)
    await annotated(pod, 'enabled')
    expect(await isCaptured(pod)).toBe(true)
    const status = await field.mesh.status()
    expect(status.pods).toMatchObject([
      { name: 'running', uid: pod.uid, containerId: pod.containerId, alive: true },
    ])
    relabel(pod, { [dataplane]: null })
    await ztunnel.waitForZds(({ what, uid }) => what === 'del' && uid === pod.uid)
    expect(pod.redirection()).toBeUndefined()
    expect((await field.mesh.status()).pods).toEqual([])
    expect(await isCaptured(pod)).toBe(false)
    field.api.pods.delete(pod)
  })

  test('follows the label of its namespace', async () => {
    field.api.namespaces.create({ name: 'flips' })
    await using pod = await field.started(1, { name: 'flipping', namespace: 'flips' })
    field.api.namespaces.update({ name: 'flips' }, { metadata: { labels: ambient } } as never)
    await annotated(pod, 'enabled')
    expect(await isCaptured(pod)).toBe(true)
    field.api.namespaces.update({ name: 'flips' }, { metadata: { labels: { [dataplane]: null } } } as never)
    await annotated(pod, undefined)
    await waitFor('the end of capture', async () => !(await isCaptured(pod)))
    field.api.pods.delete(pod)
  })
})
