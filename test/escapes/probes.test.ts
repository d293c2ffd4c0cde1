// SPDX-License-Identifier: Apache-2.0
/** The kubelet's probes go past the proxy: others that would like to look like them. Far is the node here. */
import { afterAll, beforeAll, expect } from 'vitest'
import { ambridgePath } from '../support/ambridge.ts'
import { Cgroup } from '../support/cgroup.ts'
import { endpoint } from '../support/mesh.ts'
import { connect, SockClient } from '../support/sock.ts'
import { dialIn, expectContained, expectDirect, Field, type Outcome } from './field.ts'
import { vector } from './vector.ts'

const port = 40_123

let field: Field
let kubelet: Cgroup

beforeAll(async () => {
  field = await Field.create()
  kubelet = Cgroup.create()
  const probes = ['--probes', 'kubelet', '--kubelet-cgroup', kubelet.dir]
  await field.far.netns.run(ambridgePath(), ['load', '--bpffs', field.mesh.bpffs, ...probes])
  // With none, a port is free as soon as its connection is closed.
  await field.far.netns.sysctl({ 'ipv4.tcp_max_tw_buckets': 0 })
})
afterAll(async () => {
  await field?.dispose()
  await kubelet?.dispose()
})

const fromPort = (ip: string) => ['--bind', endpoint(ip, port), '--reuseaddr']

/** A probe, which does pass: the test would prove nothing otherwise. */
async function probe(options: readonly string[] = fromPort(field.far.ipv4)): Promise<void> {
  const where = { netns: field.far.netns, cgroupDir: kubelet.dir }
  const seen = await field.observe(field.app, () => connect(where, field.pod.ipv4, 8080, options))
  expectDirect(seen)
}

function dialAsOther(): Promise<Outcome> {
  return dialIn(field, field.pod, { to: field.pod.ipv4, options: fromPort(field.far.ipv4) })
}

async function provePortTaken(before: () => Promise<unknown>) {
  const options = fromPort(field.far.ipv4)
  const without = expectDirect(await dialIn(field, field.twin, { to: field.twin.ipv4, options }))
  await before()
  const held = await dialAsOther()
  expect(held.captured).toHaveLength(1)
  return { without, with: expectContained(held) }
}

vector("a process of the node takes the port of the kubelet's probe", () => provePortTaken(() => probe()))

vector('a process of the node takes the port of a probe that was refused', () =>
  provePortTaken(async () => {
    const where = { netns: field.far.netns, cgroupDir: kubelet.dir }
    expect(await connect(where, field.pod.ipv4, 83, fromPort(field.far.ipv4))).toMatchObject({
      error: 'ECONNREFUSED',
    })
  }),
)

vector('another pod takes the port of a probe that is open', async () => {
  const options = fromPort(field.twin.ipv4)
  const inbound = () => connect(field.at(field.twin), field.pod.ipv4, 8080, options)
  const without = expectDirect(
    await field.observe(field.server, () => connect(field.at(field.twin), field.far.ipv4, 8080, options), {
      from: field.twin,
    }),
  )
  const where = { netns: field.far.netns, cgroupDir: kubelet.dir }
  const hold = [...fromPort(field.far.ipv4), '--hold', '2000']
  await using open = await SockClient.start(where, field.pod.ipv4, 8080, hold)
  expect(await open.result()).toMatchObject({ ok: true })
  const held = await field.observe(field.app, inbound)
  return { without, with: expectContained(held) }
})

vector('a process of the pod, bound to the address and port of a probe', async () => {
  await probe()
  const options = ['--transparent', ...fromPort(field.far.ipv4)]
  const inside = () => connect(field.at(field.pod), field.pod.ipv4, 8080, ['--timeout', '500', ...options])
  await field.observe(field.app, inside)
  const held = await dialAsOther()
  return { without: 'reached', with: expectContained(held) }
})

vector('the probe address of istio-cni as source, with probes on', async () => {
  const address = '169.254.7.127'
  await field.twin.netns.ip([`addr add ${address}/32 dev lo`])
  await field.pod.netns.ip([`route add ${address} via ${field.twin.ipv4}`])
  const options = ['--bind', address]
  const dial = () => connect(field.at(field.twin), field.pod.ipv4, 8080, options)
  const held = expectDirect(await field.observe(field.app, dial))
  return { without: 'reached', with: `${held}, as with Istio: the network must not let it pass`, limit: true }
})
