// SPDX-License-Identifier: Apache-2.0
/** Mode sidecar: each rule of Istio's chains (istio-iptables), by its number, with a real Envoy. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { app, enrolled, onlyGid, onlyUid, path } from '../sidecar/pod.ts'
import { Sidecar } from '../sidecar/sidecar.ts'
import { families, Mesh } from '../support/mesh.ts'
import type { LanHost } from '../support/netns.ts'
import { SockServer } from '../support/sock.ts'

let mesh: Mesh
let pod: LanHost
let remote: LanHost
let other: LanHost
let envoy: Sidecar

beforeAll(async () => {
  mesh = await Mesh.create({ hosts: 3, load: ['--sidecar'] })
  pod = mesh.host(0)
  remote = mesh.host(1)
  other = mesh.host(2)
  for (const host of [remote, other])
    await SockServer.start({ ...mesh.at(host), ports: [9090, 9091, 15020], name: 'remote' })
  await SockServer.start({ ...mesh.at(pod), ports: [8080, 8090, 15008, 15020, 15021, 15090], name: 'app' })
  await using _ = await enrolled(mesh, pod)
  envoy = await Sidecar.start(mesh.at(pod))
})
afterAll(async () => {
  await envoy?.stop()
  await mesh?.dispose()
})

/** As the app unless `user` says otherwise. */
function outbound(address: string, port: number, user: readonly string[] = app): Promise<string> {
  return path(mesh, pod, address, port, user)
}

function inbound(port: number, key: 'ipv4' | 'ipv6' = 'ipv4'): Promise<string> {
  return path(mesh, remote, pod[key], port)
}

test.for(families)(
  'by default all outbound TCP over $name is captured, but port 15020',
  async ({ key, options }) => {
    await using _ = await enrolled(mesh, pod)
    expect(await outbound(remote[key], 9090, [...app, ...options])).toBe('outbound')
    expect(await outbound(remote[key], 15020, [...app, ...options])).toBe('direct')
  },
)

test('rule 1, excludeOutboundPorts: also outside of the ranges, also for the proxy', async () => {
  await using _ = await enrolled(mesh, pod, {
    annotations: { excludeOutboundPorts: '9091,8080', includeOutboundPorts: '9091' },
  })
  expect(await outbound(remote.ipv4, 9091)).toBe('direct')
  expect(await outbound(remote.ipv6, 9091)).toBe('direct')
  expect(await outbound(remote.ipv4, 9090)).toBe('outbound')
  expect(await outbound(pod.ipv4, 8080, onlyUid)).toBe('direct')
})

test('rule 2: what is bound to 127.0.0.6 and calls the pod goes straight to the app', async () => {
  await using _ = await enrolled(mesh, pod)
  const bound = ['--bind', '127.0.0.6']
  expect(await outbound(pod.ipv4, 8080, [...bound, ...onlyUid])).toBe('direct')
  expect(await outbound(pod.ipv4, 8080, [...bound, ...app])).toBe('direct')
})

test.for(families)(
  'rule 3a: the proxy that calls its own pod over $name comes in by the inbound listener',
  async ({ key, options }) => {
    await using _ = await enrolled(mesh, pod)
    expect(await outbound(pod[key], 8080, [...onlyUid, ...options])).toBe('inbound')
    expect(await outbound(pod[key], 15008, [...onlyUid, ...options])).toBe('direct')
  },
)

test('rule 3a: of the loopback addresses, only 127.0.0.1 and ::1 are spared', async () => {
  await using _ = await enrolled(mesh, pod)
  expect(await outbound('127.0.0.1', 8080, onlyUid)).toBe('direct')
  expect(await outbound('0.0.0.0', 8080, onlyUid)).toBe('direct')
  expect(await outbound('::1', 8080, onlyUid)).toBe('direct')
  expect(await outbound('127.0.0.2', 8080, onlyUid)).toBe('inbound')
})

test.for(families)(
  "rule 3b: the app's calls to its own pod over $name are direct",
  async ({ key, options }) => {
    await using _ = await enrolled(mesh, pod)
    for (const user of [app, onlyGid]) {
      expect(await outbound(pod[key], 8080, [...user, ...options])).toBe('direct')
    }
    expect(await outbound(key === 'ipv4' ? '127.0.0.2' : '::1', 8080, [...app, ...options])).toBe('direct')
  },
)

test.for(families)(
  "rule 3c: the proxy's own traffic over $name is direct, by UID or by GID",
  async ({ key, options }) => {
    await using _ = await enrolled(mesh, pod)
    for (const user of [onlyUid, onlyGid]) {
      expect(await outbound(remote[key], 9090, [...user, ...options])).toBe('direct')
    }
    expect(await outbound(remote[key], 9090, [...app, ...options])).toBe('outbound')
  },
)

test('rule 3: another UID and GID than 1337 can be configured', async () => {
  await using _ = await enrolled(mesh, pod, { conf: { sidecar: { proxyUid: 2000, proxyGid: 2001 } } })
  expect(await outbound(remote.ipv4, 9090, ['--uid', '2000', '--gid', '1000'])).toBe('direct')
  expect(await outbound(remote.ipv4, 9090, ['--uid', '1000', '--gid', '2001'])).toBe('direct')
  expect(await outbound(remote.ipv4, 9090, onlyUid)).not.toBe('direct')
})

test('rules 3b and 6, a loopback range is included: calls to the own pod are captured, those to 127.0.0.1 are not', async () => {
  const includeOutboundIPRanges = `127.0.0.0/8,${pod.ipv4}/32`
  await using _ = await enrolled(mesh, pod, { annotations: { includeOutboundIPRanges } })
  expect(await outbound('127.0.0.1', 8080)).toBe('direct')
  expect(await outbound('127.0.0.2', 8080)).toBe('inbound')
  expect(await outbound(pod.ipv4, 8080)).toBe('inbound')
  expect(await outbound(pod.ipv4, 8080, onlyGid)).toBe('inbound')
  expect(await outbound(pod.ipv6, 8080)).toBe('direct')
  expect(await outbound(remote.ipv4, 9090)).toBe('direct')
})

test('rule 7, excludeOutboundIPRanges: goes before included ports and ranges', async () => {
  const annotations = {
    includeOutboundIPRanges: `127.0.0.0/8,${remote.ipv4}/30`,
    excludeOutboundIPRanges: `127.0.0.2/32,${remote.ipv4}/32,${remote.ipv6}/128`,
    includeOutboundPorts: '9091',
  }
  await using _ = await enrolled(mesh, pod, { annotations })
  expect(await outbound(remote.ipv4, 9090)).toBe('direct')
  expect(await outbound(remote.ipv4, 9091)).toBe('direct')
  expect(await outbound(remote.ipv6, 9091)).toBe('direct')
  expect(await outbound(other.ipv4, 9090)).toBe('outbound')
  expect(await outbound(other.ipv6, 9091)).toBe('outbound')
  expect(await outbound('127.0.0.2', 8080)).toBe('direct')
})

test('rule 8, includeOutboundPorts: also outside of the ranges', async () => {
  await using _ = await enrolled(mesh, pod, {
    annotations: { includeOutboundIPRanges: '', includeOutboundPorts: '9091' },
  })
  for (const key of ['ipv4', 'ipv6'] as const) {
    expect(await outbound(remote[key], 9091)).toBe('outbound')
    expect(await outbound(remote[key], 9090)).toBe('direct')
  }
})

test('rule 9, includeOutboundIPRanges: these alone', async () => {
  const includeOutboundIPRanges = `${remote.ipv4}/32,${remote.ipv6}/128`
  await using _ = await enrolled(mesh, pod, { annotations: { includeOutboundIPRanges } })
  for (const { key, options } of families) {
    expect(await outbound(remote[key], 9090, [...app, ...options])).toBe('outbound')
    expect(await outbound(other[key], 9090, [...app, ...options])).toBe('direct')
  }
})

test.for<[string, Record<string, string>, Record<number, string>]>([
  [
    'by default all ports but the status ports and 15008',
    {},
    { 8080: 'inbound', 8090: 'inbound', 15008: 'direct' },
  ],
  ['excludeInboundPorts', { excludeInboundPorts: '8090' }, { 8080: 'inbound', 8090: 'direct' }],
  ['includeInboundPorts', { includeInboundPorts: '8090' }, { 8080: 'direct', 8090: 'inbound' }],
  ['includeInboundPorts "": none', { includeInboundPorts: '' }, { 8080: 'direct', 8090: 'direct' }],
  [
    'status.sidecar.istio.io/port',
    { 'status.sidecar.istio.io/port': '8090' },
    { 8080: 'inbound', 8090: 'direct' },
  ],
])('inbound, %s', async ([, annotations, expected]) => {
  await using _ = await enrolled(mesh, pod, { annotations })
  for (const [port, path] of Object.entries({
    ...expected,
    15020: 'direct',
    15021: 'direct',
    15090: 'direct',
  })) {
    for (const key of ['ipv4', 'ipv6'] as const)
      expect([port, await inbound(Number(port), key)]).toEqual([port, path])
  }
})
