// SPDX-License-Identifier: Apache-2.0
/** Who may be ztunnel: by the pod of the process that connects, and by where its cgroup lies. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { annotated, isCaptured, isRefused, servedBy } from '../support/agent-checks.ts'
import { AgentMesh, ambient, type MeshPod } from '../support/agent-mesh.ts'
import type { LanHost } from '../support/netns.ts'

let field: AgentMesh
let far: LanHost

beforeAll(async () => {
  field = await AgentMesh.create({ hosts: 4, agent: { proxyCgroup: false, reconcileSeconds: 1 } })
  far = field.mesh.host(3)
  await field.mesh.serve(far, 'far', [8080])
  field.api.namespaces.create({ name: 'istio-system', labels: ambient })
})
afterAll(() => field?.[Symbol.asyncDispose]())

/** With its label, which anybody can set. */
const label = { app: 'ztunnel' }

async function ztunnelPod(serviceAccount: string, namespace = 'istio-system'): Promise<MeshPod> {
  const made = await field.pod(0, { name: serviceAccount, namespace, serviceAccount, labels: label })
  made.run()
  return made
}

async function remove(pod: MeshPod): Promise<void> {
  await pod.del()
  field.api.pods.delete(pod)
}

describe('a process in a pod', () => {
  test.for([
    ['istio-system', 'default'],
    ['shop', 'ztunnel'],
  ] as const)('of service account %s/%s is refused', async ([namespace, serviceAccount]) => {
    await using pod = await ztunnelPod(serviceAccount, namespace)
    await using impostor = await field.ztunnel({ cgroupDir: pod.at.cgroupDir })
    const line = await field.agent.waitForLog('connection refused', ({ pid }) => pid === impostor.daemon.pid)
    expect(line).toMatchObject({
      module: 'zds',
      error: `pod ${namespace}/${serviceAccount} has service account ${namespace}/${serviceAccount}, ztunnel has service account istio-system/ztunnel`,
      remedy: expect.stringContaining('--ztunnel'),
    })
    expect(impostor.zdsEvents().filter(({ what }) => what === 'snapshot')).toEqual([])
    await remove(pod)
  })

  test('that the API server does not know is refused', async () => {
    await using pod = await ztunnelPod('unknown')
    field.api.pods.delete(pod)
    await using impostor = await field.ztunnel({ cgroupDir: pod.at.cgroupDir })
    const line = await field.agent.waitForLog('connection refused', ({ pid }) => pid === impostor.daemon.pid)
    expect(line).toMatchObject({ error: expect.stringContaining(`does not name pod ${pod.uid}`) })
    await pod.del()
  })
})

describe('ztunnel in its own pod', () => {
  test('is a proxy, and not in the mesh itself', async () => {
    await using own = await ztunnelPod('ztunnel')
    await using ztunnel = await field.ztunnel({ cgroupDir: own.at.cgroupDir })
    await ztunnel.waitForSnapshot()
    await using pod = await field.started(1, { namespace: 'mesh' })
    await annotated(pod, 'enabled')
    expect(await isCaptured(pod, far)).toBe(true)
    expect(own.redirection()).toBeUndefined()
    expect((await field.mesh.status()).pods.map(({ uid }) => uid)).toEqual([pod.uid])
    await remove(pod)
    await remove(own)
  })

  test('stays one when the programs are unloaded, and the agent loads them again', async () => {
    await using own = await ztunnelPod('ztunnel')
    await using ztunnel = await field.ztunnel({ cgroupDir: own.at.cgroupDir })
    await ztunnel.waitForSnapshot()
    await using pod = await field.started(1, { namespace: 'mesh' })
    await annotated(pod, 'enabled')
    await field.mesh.ambridge('unload')
    await field.agent.waitForLog('running pod enrolled')
    await field.agent.waitForLog('repaired', ({ kind }) => kind === 'listener')
    expect(await isCaptured(pod, far)).toBe(true)
    expect(ztunnel.zdsEvents().filter(({ what }) => what === 'connected')).toHaveLength(1)
    await remove(pod)
    await remove(own)
  })
})

describe('a process outside of pods', () => {
  test('in a cgroup that holds pods is refused: all of them would pass for the proxy', async () => {
    await using pod = await field.started(1, { name: 'plain' })
    for (const { dir } of [field.mesh.cgroup, field.mesh.pods]) {
      await using impostor = await field.ztunnel({ cgroupDir: dir })
      const line = await field.agent.waitForLog(
        'connection refused',
        ({ pid }) => pid === impostor.daemon.pid,
      )
      expect(line).toMatchObject({
        error: `process ${impostor.daemon.pid} is in cgroup ${dir}, which holds captured pods, too`,
        remedy: expect.stringContaining('--proxy-identity mark'),
      })
      expect(servedBy(impostor)).toEqual([])
    }
    await remove(pod)
  })

  test('is told by its mark there, with --proxy-identity mark', async () => {
    const mark = ['--proxy-identity', 'mark']
    await using marked = await AgentMesh.create({ hosts: 2, load: mark, agent: { args: mark } })
    const [, server] = marked.mesh.hosts
    await marked.mesh.serve(server as LanHost, 'far', [8080])
    await using ztunnel = await marked.ztunnel({ cgroupDir: marked.mesh.pods.dir })
    await ztunnel.waitForSnapshot()
    const pod = await marked.started(0, { namespace: 'mesh' })
    expect(await isCaptured(pod, server as LanHost)).toBe(true)
    await ztunnel.stop()
    expect(await isRefused(pod, server as LanHost)).toBe(true)
    await pod.del()
  })
})
