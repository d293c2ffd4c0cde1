// SPDX-License-Identifier: Apache-2.0
/**
 * A node with the cgroups that this machine has, on a hybrid one with cgroup v1. Here the kubelet is restarted, too: without the cpu
 * controller of cgroup v2 it comes up only once.
 */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { MeshCluster } from './mesh.ts'
import { namespace } from './workloads.ts'

let mesh: MeshCluster
const early = { name: 'early', namespace: 'shop' }

beforeAll(async () => {
  mesh = await MeshCluster.start('hybrid')
  await mesh.kubectl.apply(namespace('shop', { 'istio.io/dataplane-mode': 'ambient' }))
  await mesh.start(early)
}, 240_000)

afterAll(async () => {
  await mesh?.stop()
}, 60_000)

test('a pod that was there before ambridge is brought into the mesh', async () => {
  expect(await mesh.firstDial(early)).toBe('direct')
  await mesh.deploy()
  await mesh.ztunnelReady()
  await mesh.agentReady()
  await expect.poll(() => mesh.redirection(early)).toBe('enabled')
  expect(await mesh.dial(early)).toBe('captured')
}, 120_000)

test('the kubelet is restarted', async () => {
  const { kubelet } = mesh.cluster
  await kubelet.stop()
  await kubelet.start()
  await mesh.execWorks(early)
  expect(await mesh.dial(early)).toBe('captured')
  const after = { name: 'after', namespace: 'shop' }
  await mesh.start(after)
  expect(await mesh.firstDial(after)).toBe('captured')
}, 120_000)
