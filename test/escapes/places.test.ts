// SPDX-License-Identifier: Apache-2.0
/** Where a process is, where its socket was made, and when: cgroups, namespaces, before and after enrollment. */
import { afterAll, beforeAll, expect } from 'vitest'
import { cni } from '../support/ambridge.ts'
import { Cgroup, cgroup2Root } from '../support/cgroup.ts'
import { tryRun } from '../support/exec.ts'
import type { LanHost } from '../support/netns.ts'
import { type ConnectResult, connect, enter, parseLines, SockClient, toolPath } from '../support/sock.ts'
import {
  dialFar,
  expectCaptured,
  expectContained,
  expectDirect,
  Field,
  type Outcome,
  proveInbound,
  proveOutbound,
} from './field.ts'
import { vector } from './vector.ts'

let field: Field

beforeAll(async () => {
  field = await Field.create({ hosts: 5 })
})
afterAll(() => field?.dispose())

/** A client behind another program, for instance unshare. */
async function dialThrough(host: LanHost, wrapper: readonly string[]): Promise<Outcome> {
  const client = [await toolPath('sock'), 'connect', field.far.ipv4, '8080']
  const [command = '', ...args] = enter(field.at(host), [...wrapper, ...client])
  const dial = async () => {
    const { stdout, stderr } = await tryRun(command, args)
    const [result] = parseLines<ConnectResult>(stdout)
    if (!result) throw new Error(`the client reported nothing: ${stderr}`)
    return result
  }
  return field.observe(field.server, dial, { from: host })
}

async function proveThrough(wrapper: readonly string[]) {
  const without = expectDirect(await dialThrough(field.twin, wrapper))
  const held = await dialThrough(field.pod, wrapper)
  return { without, with: expectCaptured(held, field.far.ipv4, 8080) }
}

vector('a cgroup below that of the pod', async () => {
  await using child = field.mesh.pods.child('made-by-the-pod')
  const where = ({ netns }: LanHost) => ({ netns, cgroupDir: child.dir })
  return await proveOutbound(field, { to: field.far.ipv4, where })
})

vector('a new cgroup namespace', () => proveThrough(['unshare', '--cgroup']))
vector('a new user namespace', () => proveThrough(['unshare', '--user', '--map-root-user']))
vector('new mount, PID and IPC namespaces', () =>
  proveThrough(['unshare', '--mount', '--ipc', '--pid', '--fork']),
)

vector('nsenter into the netns, from inside of the captured cgroup', async () => {
  await using elsewhere = field.mesh.cgroup.child('elsewhere')
  const where = ({ netns }: LanHost) => ({ netns, cgroupDir: elsewhere.dir })
  return await proveOutbound(field, { to: field.far.ipv4, where })
})

vector('nsenter into the netns, from outside of the captured cgroup', async () => {
  await using outside = Cgroup.create()
  const where = ({ netns }: LanHost) => ({ netns, cgroupDir: outside.dir })
  expectDirect(await dialFar(field, field.twin, { to: field.far.ipv4, where }))
  const held = await dialFar(field, field.pod, { to: field.far.ipv4, where })
  return { without: 'reached', with: `${expectDirect(held)}: only the host can do it`, limit: true }
})

vector('nsenter into the netns, from anywhere, with the programs at the root', async () => {
  await using outside = Cgroup.create()
  const where = ({ netns }: LanHost) => ({ netns, cgroupDir: outside.dir })
  await field.mesh.ambridge('load', ['--cgroup', cgroup2Root()])
  try {
    return await proveOutbound(field, { to: field.far.ipv4, where })
  } finally {
    await field.mesh.load()
  }
})

vector('a socket that another process of the pod passes on (SCM_RIGHTS)', async () => {
  const dial = (host: LanHost) =>
    dialFar(field, host, { to: field.far.ipv4, options: ['--passed-from', host.netns.path] })
  return { without: expectDirect(await dial(field.twin)), with: expectContained(await dial(field.pod)) }
})

vector('a socket of another netns that is not enrolled (SCM_RIGHTS)', async () => {
  const options = ['--passed-from', field.twin.netns.path]
  const held = await dialFar(field, field.pod, { to: field.far.ipv4, options })
  expect(held.value.local).toContain(field.twin.ipv4)
  return { without: 'reached', with: `${expectDirect(held)} from the other netns`, limit: true }
})

vector('a socket of the pod that a process outside of the captured cgroup passes on', async () => {
  await using outside = Cgroup.create()
  const dial = (host: LanHost) => {
    const options = ['--passed-from', host.netns.path, '--passed-cgroup', outside.dir]
    return dialFar(field, host, { to: field.far.ipv4, options })
  }
  const without = expectDirect(await dial(field.twin))
  return { without, with: `${expectDirect(await dial(field.pod))}: only the host can do it`, limit: true }
})

vector('a socket that is older than the enrollment, connected afterwards', async () => {
  const host = field.mesh.host(3)
  await using early = await SockClient.start(field.at(host), field.far.ipv4, 8080, ['--wait-stdin'])
  await using direct = await SockClient.start(field.at(host), field.far.ipv4, 8080, ['--wait-stdin'])
  const dial = (client: SockClient) => async () => {
    client.connect()
    return client.result()
  }
  const without = expectDirect(await field.observe(field.server, dial(direct)))
  await field.mesh.enroll(host)
  const held = await field.observe(field.server, dial(early), { from: host })
  return { without, with: expectCaptured(held, field.far.ipv4, 8080) }
})

vector('a listener that is older than the enrollment', async () => {
  const host = field.mesh.host(4)
  await using app = await field.mesh.serve(host, 'early', [8080])
  const inbound = () => connect(field.at(field.far), host.ipv4, 8080)
  const dial = () => field.observe(app, inbound, { from: host })
  const without = expectDirect(await dial())
  await field.mesh.enroll(host)
  return { without, with: expectContained(await dial()) }
})

vector('a late DEL of an old sandbox, with the netns of the new one', async () => {
  const attempt = { to: field.far.ipv4 }
  const without = expectDirect(await dialFar(field, field.twin, attempt))
  const conf = field.mesh.conf()
  const old = { containerId: 'old-sandbox', ifname: 'eth0', netns: field.mesh.host(3).netns.path, conf }
  await cni('ADD', old)
  await cni('DEL', { ...old, netns: field.pod.netns.path })
  // Another one of this very netns that was never told to go, as after a restart of the runtime.
  const same = { containerId: 'other-sandbox', ifname: 'eth0', netns: field.pod.netns.path, conf }
  await cni('ADD', same)
  await cni('DEL', same)
  await proveInbound(field, ({ ipv4 }) => ({ to: ipv4 }))
  return { without, with: expectContained(await dialFar(field, field.pod, attempt)) }
})

vector('empty tables: nft, iptables, tc and rules flushed with CAP_NET_ADMIN', async () => {
  for (const { netns } of [field.pod, field.twin]) {
    await netns.run('nft', ['flush', 'ruleset'])
    for (const command of ['iptables', 'ip6tables'])
      for (const table of ['nat', 'mangle', 'filter', 'raw']) await netns.run(command, ['-t', table, '-F'])
    for (const qdisc of ['root', 'clsact']) await netns.exec('tc', ['qdisc', 'del', 'dev', 'eth0', qdisc])
    await netns.run('ip', ['rule', 'flush'])
    await netns.ip(['rule add lookup local pref 0', 'rule add lookup main', 'rule add lookup default'])
  }
  await proveInbound(field, ({ ipv4 }) => ({ to: ipv4 }))
  return proveOutbound(field, { to: field.far.ipv4 })
})
