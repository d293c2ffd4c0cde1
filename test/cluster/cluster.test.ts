// SPDX-License-Identifier: Apache-2.0
/** ambridge on a real Kubernetes, deployed with its manifest. One cluster; each test goes on from where the one before has left it. */
import { writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { waitFor } from '../support/exec.ts'
import { nodeName } from './kubelet.ts'
import { agentLabels, agentNamespace } from './manifest.ts'
import { MeshCluster, type PodRef, patient, serverPort } from './mesh.ts'
import { measureStarts } from './start-times.ts'
import { dialler, namespace, pod, ztunnelLabels } from './workloads.ts'

let mesh: MeshCluster
const early = { name: 'early', namespace: 'shop' }
const outsider = { name: 'outsider', namespace: 'default' }
const shop = { kind: 'namespace', name: 'shop' }
const patientPoll = { timeout: 30_000, interval: 200 }

beforeAll(async () => {
  mesh = await MeshCluster.start()
  await mesh.kubectl.apply(namespace('shop'), pod(early), pod(outsider))
  await Promise.all([mesh.running(early), mesh.running(outsider)])
}, 240_000)

afterAll(async () => {
  await mesh?.stop()
}, 60_000)

/** Of each pod's next connection: nothing is waited for. */
async function expectOutcomes(expected: Readonly<Record<string, 'captured' | 'direct'>>): Promise<void> {
  for (const [key, outcome] of Object.entries(expected)) {
    const [namespace = '', name = ''] = key.split('/')
    expect(await mesh.dial({ namespace, name }), key).toBe(outcome)
  }
}

async function expectRedirection(ref: PodRef, value: string | undefined): Promise<void> {
  await expect.poll(() => mesh.redirection(ref), patientPoll).toBe(value)
}

test('the DaemonSet becomes Ready, and the chain of the primary CNI ends with the plugin', async () => {
  await mesh.deploy()
  await mesh.ztunnelReady()
  await mesh.agentReady()
  expect(mesh.chain().map(({ type }) => type)).toEqual(['bridge', 'ambridge'])
  await expectOutcomes({ 'shop/early': 'direct', 'default/outsider': 'direct' })
}, 120_000)

test.for([
  ['get', 'pods', 'yes'],
  ['list', 'pods', 'yes'],
  ['watch', 'namespaces', 'yes'],
  ['patch', 'pods --subresource=status', 'yes'],
  ['patch', 'pods', 'no'],
  ['update', 'pods --subresource=status', 'no'],
  ['delete', 'pods', 'no'],
  ['create', 'pods --subresource=exec', 'no'],
  ['get', 'secrets', 'no'],
  ['get', 'nodes', 'no'],
] as const)('may the agent %s %s? %s', async ([verb, resource, answer]) => {
  const account = `--as=system:serviceaccount:${agentNamespace}:ambridge`
  const args = ['auth', 'can-i', verb, ...resource.split(' '), '-A', account]
  const { stdout } = await mesh.kubectl.try(args)
  expect(stdout.trim()).toBe(answer)
})

test('a namespace that is labelled brings its running pods into the mesh', async () => {
  await mesh.kubectl.label(shop, 'istio.io/dataplane-mode=ambient')
  await expectRedirection(early, 'enabled')
  await expectOutcomes({ 'shop/early': 'captured', 'default/outsider': 'direct' })
  const [seen] = (await mesh.connections()).slice(-1)
  expect(seen).toMatchObject({ listener: 15001, original: `${mesh.server}:${serverPort}`, error: '' })
})

test('without the label they leave it', async () => {
  await mesh.kubectl.label(shop, 'istio.io/dataplane-mode-')
  await expectRedirection(early, undefined)
  await expectOutcomes({ 'shop/early': 'direct' })
})

test('the very first connection of a new pod is captured', async () => {
  await mesh.kubectl.label(shop, 'istio.io/dataplane-mode=ambient')
  const first = { name: 'first', namespace: 'shop' }
  await mesh.start(first)
  expect(await mesh.firstDial(first)).toBe('captured')
  await expectRedirection(first, 'enabled')
})

test('the label of a pod goes before that of its namespace, and kube-system stays out', async () => {
  const cases = [
    ['shop', 'none', 'direct'],
    ['default', 'ambient', 'captured'],
    ['kube-system', 'ambient', 'direct'],
  ] as const
  for (const [namespace, mode, outcome] of cases) {
    const ref = { name: `labelled-${mode}`, namespace }
    await mesh.start(ref, { 'istio.io/dataplane-mode': mode })
    expect(await mesh.firstDial(ref), `${mode} in ${namespace}`).toBe(outcome)
    await expectRedirection(ref, outcome === 'captured' ? 'enabled' : undefined)
  }
})

test('probes of the kubelet reach a pod of the mesh directly, others on the node do not', async () => {
  const probed = { name: 'probed', namespace: 'shop' }
  const container = {
    readinessProbe: { httpGet: { port: 8080, path: '/hostname' }, periodSeconds: 1 },
  }
  const command = ['/bin/httpd', '-f', '-p', '[::]:8080', '-h', '/etc']
  await mesh.kubectl.apply(pod({ ...probed, labels: { app: 'probed' }, command, container }))
  const [found] = await mesh.kubectl.waitReady('shop', 'app=probed')
  const app = `${found?.status.podIP}:8080`
  const inbound = async () => (await mesh.connections()).filter(({ original }) => original === app)
  expect(await inbound()).toEqual([])
  await mesh.cluster.node.inNode('curl', ['-sm', '5', `http://${app}/hostname`])
  await expect.poll(inbound).toMatchObject([{ listener: 15006 }])
})

test('ztunnel is replaced: nothing passes beside it, and running pods are in the mesh again', async () => {
  const { metadata } = await mesh.ztunnelReady()
  await mesh.kubectl.delete({ kind: 'pod', name: metadata.name, namespace: agentNamespace })
  const seen = new Set<string>()
  const isCaptured = async () => seen.add(await mesh.dial(early)).has('captured')
  await waitFor('a captured connection', isCaptured, patient)
  expect(seen).not.toContain('direct')
  expect((await mesh.ztunnelReady()).metadata.name).not.toBe(metadata.name)
  await mesh.agentReady()
  await expect.poll(() => mesh.dial({ namespace: 'shop', name: 'first' }), patientPoll).toBe('captured')
})

describe('while the agent is away', () => {
  const waiting = { name: 'waiting', namespace: 'shop' }

  test('running pods stay captured, excluded pods and those known not to be enrolled start, others wait', async () => {
    await mesh.keepAgentAway(true)
    await expectOutcomes({ 'shop/early': 'captured' })
    const excluded = { name: 'meanwhile', namespace: 'kube-system' }
    await mesh.start(excluded)
    expect(await mesh.firstDial(excluded)).toBe('direct')
    await mesh.replaceSandbox(outsider)
    await expectOutcomes({ 'default/outsider': 'direct' })
    await mesh.kubectl.apply(dialler(waiting, mesh.server, serverPort))
    const refusal = async () =>
      (await mesh.kubectl.describe('shop')).match(/plugin type="ambridge" failed.*/)?.[0]
    await expect.poll(refusal, patientPoll).toMatch(/agent/)
  }, 120_000)

  test('the pod that waited is enrolled once the agent is back', async () => {
    await mesh.keepAgentAway(false)
    await mesh.running(waiting)
    expect(await mesh.firstDial(waiting)).toBe('captured')
    await expectOutcomes({ 'shop/early': 'captured', 'default/outsider': 'direct' })
  }, 120_000)
})

test('the agent is killed, and comes back', async () => {
  process.kill(mesh.agentPid(), 'SIGKILL')
  await expectOutcomes({ 'shop/early': 'captured' })
  await expect.poll(() => mesh.restartsOf(agentLabels), patientPoll).toEqual([1])
  await mesh.agentReady()
  await expectOutcomes({ 'shop/first': 'captured', 'default/outsider': 'direct' })
})

test('containerd is restarted', async () => {
  const { node } = mesh.cluster
  await node.stopContainerd()
  await node.startContainerd()
  await mesh.agentReady()
  await mesh.ztunnelReady()
  await expectOutcomes({ 'shop/early': 'captured', 'default/outsider': 'direct' })
  const after = { name: 'after-containerd', namespace: 'shop' }
  await mesh.start(after)
  expect(await mesh.firstDial(after)).toBe('captured')
})

test('a static pod is enrolled, although the runtime knows it by another uid', async () => {
  const manifest = dialler({ name: 'static', namespace: 'shop' }, mesh.server, serverPort)
  writeFileSync(`${mesh.cluster.kubelet.manifestDir}/static.yaml`, JSON.stringify(manifest))
  const mirror = { name: `static-${nodeName}`, namespace: 'shop' }
  await mesh.running(mirror)
  expect(await mesh.firstDial(mirror)).toBe('captured')
  await expectRedirection(mirror, 'enabled')
})

test('nothing ended by itself or logged an error', async () => {
  expect(await mesh.restartsOf(agentLabels)).toEqual([1])
  expect(await mesh.restartsOf(ztunnelLabels)).toEqual([0])
  expect(await mesh.logs(agentLabels)).not.toMatch(/"level":"error"/)
  expect(await mesh.logs(ztunnelLabels)).not.toMatch(/"protocol-error"/)
})

test('the time that a pod takes to start, with and without the plugin', async () => {
  const { withPlugin, without } = await measureStarts(mesh, 10)
  process.stdout.write(
    `kubectl apply to the first instruction, medians of 10: ${withPlugin.toFixed()} ms with ambridge, ${without.toFixed()} ms without\n`,
  )
  expect(withPlugin).toBeGreaterThan(0)
}, 180_000)
