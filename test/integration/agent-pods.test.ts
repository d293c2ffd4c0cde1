// SPDX-License-Identifier: Apache-2.0
/** Pods that are not like the others: with a sidecar, static ones, and those that cannot be captured as they ask. */
import { rmSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Store } from '../../src/bpf/store.ts'
import { attachmentPinName, pinPaths } from '../../src/linux/bpffs.ts'
import { annotated, errorOf, isCaptured, isDel, relabel, repairs, servedBy } from '../support/agent-checks.ts'
import { AgentMesh, ambient, type MeshPod } from '../support/agent-mesh.ts'
import { waitFor } from '../support/exec.ts'
import type { LanHost } from '../support/netns.ts'
import type { ZtunnelStandin } from '../support/standin.ts'

let field: AgentMesh
let far: LanHost
let ztunnel: ZtunnelStandin

beforeAll(async () => {
  field = await AgentMesh.create({ hosts: 3, load: ['--sidecar'], agent: { args: ['--sidecar'] } })
  far = field.mesh.host(2)
  await field.mesh.serve(far, 'far', [8080])
  ztunnel = await field.ztunnel()
  await ztunnel.waitForSnapshot()
})
afterAll(() => field?.[Symbol.asyncDispose]())

const registered = async () => (await field.mesh.status()).pods

/** Waits for one: it takes away an entry of a netns that is not there. */
async function comparison(): Promise<void> {
  using store = new Store(pinPaths(field.mesh.bpffs).maps)
  const nobody = 1n << 62n
  store.pending.insert(nobody, 0n)
  await waitFor('a comparison', () => store.pending.get(nobody) === undefined)
}

async function remove(pod: MeshPod): Promise<void> {
  field.api.pods.delete(pod)
  await waitFor('the end of the pod', () => !servedBy(ztunnel).includes(pod.uid))
  await pod.del()
}

describe('a pod with a sidecar', () => {
  const annotations = { 'sidecar.istio.io/status': '{"revision":"default"}' }
  const proxyUser = 4711
  const spec = {
    containers: [
      { name: 'app', securityContext: { runAsUser: 5 } },
      { name: 'istio-proxy', securityContext: { runAsUser: proxyUser, runAsGroup: proxyUser } },
    ],
  }

  test('is captured for it, by the user of its container, and ztunnel is not told', async () => {
    await using pod = await field.started(0, { annotations, spec, labels: ambient })
    expect(await registered()).toMatchObject([{ uid: pod.uid, mode: 'sidecar', alive: true }])
    using store = new Store(pinPaths(field.mesh.bpffs).maps)
    expect(store.pods.entries()).toMatchObject([
      [expect.anything(), { proxyUid: proxyUser, proxyGid: proxyUser }],
    ])
    expect(servedBy(ztunnel)).toEqual([])
    expect(pod.redirection()).toBeUndefined()
    await remove(pod)
  })

  test('stays captured when its link is removed, and when the programs are unloaded', async () => {
    await field.agent.stop()
    await field.agent.start(['--reconcile-seconds', '1'])
    await using pod = await field.started(0, { annotations, spec })
    const alive = async () => (await registered()).some(({ uid, alive: lives }) => uid === pod.uid && lives)
    const count = async () => (await repairs(field.agent))['registration'] ?? 0
    // Two comparisons see it first.
    await comparison()
    await comparison()
    expect(await count()).toBe(0)
    rmSync(`${pinPaths(field.mesh.bpffs).netns}/${attachmentPinName(pod.containerId, 'eth0')}`)
    await waitFor('the link', alive)
    expect(await count()).toBe(1)
    await field.mesh.ambridge('unload')
    await waitFor('the registration', alive)
    expect(await registered()).toMatchObject([{ uid: pod.uid, mode: 'sidecar', alive: true }])
    await remove(pod)
  })

  test('is left alone by an agent without --sidecar', async () => {
    await using other = await AgentMesh.create({ hosts: 1 })
    await using proxy = await other.ztunnel()
    await proxy.waitForSnapshot()
    await other.started(0, { annotations, spec, labels: ambient })
    expect((await other.mesh.status()).pods).toEqual([])
    expect(servedBy(proxy)).toEqual([])
  })
})

describe('a pod that cannot be captured as it asks', () => {
  const annotations = { 'istio.io/reroute-virtual-interfaces': 'virt0' }

  test('is not added', async () => {
    await using pod = await field.pod(0, { namespace: 'mesh', annotations })
    expect(errorOf(await pod.add())).toMatchObject({
      code: 101,
      msg: 'cannot capture a pod with annotation istio.io/reroute-virtual-interfaces: "virt0"',
    })
    expect(await registered()).toEqual([])
    await remove(pod)
  })

  test('is not enrolled when it runs, which is told once and counted', async () => {
    const failures = () => field.agent.metric('ambridge_failures_total{operation="pod"}')
    const before = await failures()
    await using pod = await field.started(0, { annotations })
    relabel(field, pod, ambient)
    await waitFor('several attempts', async () => (await failures()) > before + 1)
    const told = field.agent.log().filter(({ uid, level }) => uid === pod.uid && level !== 'info')
    expect(told).toMatchObject([
      {
        level: 'warn',
        message: 'pod is not as it should be',
        error: expect.stringContaining('istio.io/reroute-virtual-interfaces'),
        remedy: expect.stringContaining('remove the annotation'),
      },
    ])
    expect(await isCaptured(pod, far)).toBe(false)
    expect(pod.redirection()).toBeUndefined()
    await remove(pod)
  })
})

describe('a static pod', () => {
  const hash = '0123456789abcdef0123456789abcdef'
  const mirror = { staticHash: hash, annotations: { 'kubernetes.io/config.hash': hash } }

  test('is one and the same for runtime, kubelet and API server', async () => {
    await using pod = await field.started(0, { namespace: 'mesh', ...mirror })
    await annotated(pod, 'enabled')
    expect(await registered()).toMatchObject([{ uid: hash, name: pod.name }])
    expect(servedBy(ztunnel)).toEqual([pod.uid])
    expect(await isCaptured(pod, far)).toBe(true)
    await remove(pod)
    expect(await registered()).toEqual([])
  })

  test('that runs is found by its hash', async () => {
    await using pod = await field.started(0, mirror)
    relabel(field, pod, ambient)
    await annotated(pod, 'enabled')
    expect(await registered()).toMatchObject([{ uid: hash, containerId: pod.containerId }])
    expect(await isCaptured(pod, far)).toBe(true)
    relabel(field, pod, { ...ambient, 'istio.io/dataplane-mode': 'none' })
    await ztunnel.waitForZds(isDel(pod))
    await annotated(pod, undefined)
    expect(await registered()).toEqual([])
    await remove(pod)
  })
})
