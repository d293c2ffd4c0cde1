// SPDX-License-Identifier: Apache-2.0
/** Ways to connect: each reaches a server by itself, and from an enrolled pod only through the proxy. */
import { afterAll, beforeAll, describe, expect } from 'vitest'
import { endpoint, families, portOf } from '../support/mesh.ts'
import type { LanHost } from '../support/netns.ts'
import { dialFar, expectCaptured, expectDirect, Field, proveOutbound } from './field.ts'
import { vector } from './vector.ts'

/** Fast Open in both directions, with data in the SYN and without cookies. */
const fastOpen = { 'ipv4.tcp_fastopen': 0x607 }

const ways = [
  ['connect()', []],
  ['non-blocking connect()', ['--nonblock']],
  ['MPTCP', ['--mptcp']],
  ['io_uring', ['--io-uring']],
  ['io_uring, in a worker thread of the kernel', ['--io-uring-async']],
  ['TCP Fast Open (sendto)', ['--fastopen']],
  ['TCP Fast Open (TCP_FASTOPEN_CONNECT)', ['--fastopen-connect']],
  ['disconnected by AF_UNSPEC, connected again', ['--disconnect']],
  ['a socket from accept(), disconnected', ['--recycled']],
  ['SO_BINDTODEVICE', ['--device', 'eth0']],
  ['SO_MARK 1337', ['--mark', '1337']],
  ['UID and GID 1337', ['--uid', '1337', '--gid', '1337']],
] as const

let field: Field

beforeAll(async () => {
  field = await Field.create()
  for (const { netns } of field.mesh.hosts) await netns.sysctl(fastOpen)
})
afterAll(() => field?.dispose())

describe.each(families)('$name', ({ name, key, options }) => {
  for (const [way, more] of ways) {
    vector(`${way}, ${name}`, async () => {
      const connections = way.startsWith('disconnected') ? 2 : 1
      const attempt = { to: field.far[key], options: [...options, ...more], connections }
      const proof = await proveOutbound(field, attempt)
      expect(proof.with).toBe('captured')
      return proof
    })
  }

  vector(`an app that listens on the via port of what it dials, ${name}`, async () => {
    const attempt = { to: field.far[key], options }
    const { captured } = await dialFar(field, field.pod, attempt)
    const via = portOf(captured.at(-1)?.local)
    await using trap = await field.mesh.serve(field.pod, 'trap', [via])
    const proof = await proveOutbound(field, attempt)
    expect(proof.with).toBe('captured')
    expect(trap.connections()).toEqual([])
    return proof
  })

  vector(`a socket bound to the via port of what it dials, ${name}`, async () => {
    const { captured } = await dialFar(field, field.pod, { to: field.far[key], options })
    const via = portOf(captured.at(-1)?.local)
    const bound = (host: LanHost) => [...options, '--bind', endpoint(host[key], via), '--reuseaddr']
    const without = expectDirect(
      await dialFar(field, field.twin, { to: field.far[key], options: bound(field.twin) }),
    )
    const held = await dialFar(field, field.pod, { to: field.far[key], options: bound(field.pod) })
    return { without, with: expectCaptured(held, field.far[key], 8080) }
  })
})

vector('loose source routing (IP_OPTIONS)', async () => {
  const accept = { 'ipv4.conf.all.accept_source_route': 1, 'ipv4.conf.eth0.accept_source_route': 1 }
  for (const { netns } of field.mesh.hosts) await netns.sysctl(accept)
  return proveOutbound(field, { to: field.far.ipv4, options: ['--first-hop', field.far.ipv4] })
})

vector('no memory for the record of a socket (optmem_max 0)', async () => {
  const few = { 'core.optmem_max': 0 }
  const enough = { 'core.optmem_max': 131072 }
  for (const { netns } of [field.pod, field.twin]) await netns.sysctl(few)
  try {
    const proof = await proveOutbound(field, { to: field.far.ipv4 })
    expect(proof.with).toBe('refused: EPERM')
    return proof
  } finally {
    for (const { netns } of [field.pod, field.twin]) await netns.sysctl(enough)
  }
})

vector('TCP port 53', async () => {
  await using resolver = await field.mesh.serve(field.far, 'resolver', [53])
  const dial = (from: typeof field.pod) =>
    field.observe(resolver, () => dialFar(field, from, { to: field.far.ipv4, port: 53 }))
  expect((await dial(field.twin)).reached).toHaveLength(1)
  expect((await dial(field.pod)).reached).toEqual([])
  return { without: 'reached', with: "to the proxy's DNS server" }
})

vector('the proxy ports of the own pod, dialled from inside', async () => {
  for (const address of [field.pod.ipv4, field.pod.ipv6, '127.0.0.1', '::1']) {
    for (const port of [15001, 15006]) {
      const { value, captured } = await dialFar(field, field.pod, { to: address, port })
      expect(value, `${address} ${port}`).toMatchObject({ ok: false })
      expect(captured.every(({ dialled }) => dialled === null)).toBe(true)
    }
  }
  return { without: 'nobody listens', with: 'the proxy refuses' }
})

vector('the broadcast address', async () => {
  const free = await dialFar(field, field.twin, { to: '10.250.0.255' })
  expect(free.value).toMatchObject({ ok: false })
  const held = await dialFar(field, field.pod, { to: '10.250.0.255' })
  return { without: `refused: ${free.value.error}`, with: expectCaptured(held, '10.250.0.255', 8080) }
})
