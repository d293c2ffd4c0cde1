// SPDX-License-Identifier: Apache-2.0
/** What does get out, as docs/SECURITY.md says: each is proven, so that the statement stays true. The guard stops most of it. */
import { afterAll, beforeAll, expect } from 'vitest'
import { waitFor } from '../support/exec.ts'
import { type EnrollOptions, families } from '../support/mesh.ts'
import { type LanHost, Netns, veth } from '../support/netns.ts'
import { connect, SockClient, sock } from '../support/sock.ts'
import { dialFar, expectCaptured, expectContained, expectDirect, Field, nat, type Outcome } from './field.ts'
import { vector } from './vector.ts'

let field: Field
let guarded: LanHost

beforeAll(async () => {
  field = await Field.create({ hosts: 6, load: ['--guard'] })
  guarded = field.mesh.host(3)
  await field.mesh.enroll(guarded, { conf: { egressGuard: true } })
})
afterAll(() => field?.dispose())

const ruleset = `table inet seen {
  counter hits {}
  chain c {
    type filter hook prerouting priority -300
    MATCH counter name hits
  }
}`

/** Packets that arrive at far and match. */
async function countArrived(match: string, act: () => Promise<unknown>, atLeast: number): Promise<number> {
  const { netns } = field.far
  const count = async (): Promise<number> => {
    const text = await netns.run('nft', ['list', 'counters', 'table', 'inet', 'seen'])
    return Number(/packets (\d+)/.exec(text)?.[1])
  }
  await netns.run('nft', ['-f', '-'], { input: `${ruleset.replace('MATCH', match)}\n` })
  try {
    await act()
    await waitFor('packets at far', async () => (await count()) >= atLeast, { timeoutMs: 1_000 }).catch(
      () => {},
    )
    return await count()
  } finally {
    await netns.run('nft', ['delete', 'table', 'inet', 'seen'])
  }
}

/** SYNs of a raw and a packet socket that arrive. */
function sendRaw(from: LanHost): Promise<number> {
  const match = `ip saddr ${from.ipv4} tcp dport 8080 tcp flags syn`
  return countArrived(match, () => sock(field.at(from), ['raw', field.far.ipv4, '8080']), 2)
}

vector('raw and packet sockets (CAP_NET_RAW)', async () => {
  const [free, held] = [await sendRaw(field.twin), await sendRaw(field.pod)]
  expect([free, held]).toEqual([2, 2])
  return { without: `${free} SYNs left`, with: `${held} SYNs leave; egressGuard stops them`, limit: true }
})

vector('raw and packet sockets (CAP_NET_RAW), with egressGuard', async () => {
  const [free, held] = [await sendRaw(field.twin), await sendRaw(guarded)]
  expect([free, held]).toEqual([2, 0])
  return { without: `${free} SYNs left`, with: 'dropped' }
})

vector('UDP other than DNS', async () => {
  const send = (from: LanHost) =>
    countArrived(
      `ip saddr ${from.ipv4} udp dport 4433`,
      () => sock(field.at(from), ['udp', `${field.far.ipv4}:4433`, '--timeout', '50']),
      1,
    )
  const [free, held] = [await send(field.twin), await send(field.pod)]
  expect([free, held]).toEqual([1, 1])
  return { without: 'arrived', with: 'arrives: Istio does not capture it either', limit: true }
})

vector('a connection that is older than the enrollment', async () => {
  const options = ['--hold', '1500']
  await using field2 = await Field.create()
  const early = field2.twin
  await using client = await SockClient.start(field2.at(early), field2.far.ipv4, 8080, options)
  expect(await client.result()).toMatchObject({ ok: true })
  await field2.mesh.enroll(early)
  expect(await client.isAliveAfterHold()).toBe(true)
  return { without: 'lives', with: 'lives, until it is closed', limit: true }
})

/** Gets out of the pod, and does not get out of one that has the guard. */
function provePair(title: string, prove: (host: LanHost) => Promise<Outcome>): void {
  vector(title, async () => {
    const without = expectDirect(await prove(field.twin))
    return {
      without,
      with: `${expectDirect(await prove(field.pod))}; egressGuard stops it`,
      limit: true,
    }
  })
  vector(`${title}, with egressGuard`, async () => {
    const without = expectDirect(await prove(field.twin))
    return { without, with: expectContained(await prove(guarded)) }
  })
}

provePair('the probe address of istio-cni as destination, at a neighbour', async ({ netns }) => {
  const to = '169.254.7.127'
  await field.far.netns.ip([`addr replace ${to}/32 dev lo`])
  await netns.ip([`route replace ${to} via ${field.far.ipv4}`])
  return dialFrom(netns, to, 8080)
})

provePair('CAP_NET_ADMIN: DNAT of a call to the own address', async ({ netns, ipv4 }) => {
  await using _nat = await nat(netns, 'output', dnatToFar())
  return await dialFrom(netns, ipv4, 7070)
})

provePair('CAP_NET_ADMIN: DNAT of a call to the own address, IPv6', async ({ netns, ipv6 }) => {
  const rule = `tcp dport 7070 dnat to [${field.far.ipv6}]:8080`
  await using _nat = await nat(netns, 'output', rule, 'ip6')
  return await dialFrom(netns, ipv6, 7070)
})

provePair('CAP_NET_ADMIN: DNAT of a call to loopback', async ({ netns, ipv4 }) => {
  await using _nat = await nat(netns, 'output', dnatToFar())
  return await dialFrom(netns, '127.0.0.1', 7070, ['--bind', ipv4])
})

provePair('CAP_NET_ADMIN: DNAT of a captured connection, at its via port', async ({ netns }) => {
  await using _nat = await nat(netns, 'output', `meta mark != 0x539 ${dnatToFar('1024-32767')}`)
  return await dialFrom(netns, '192.0.2.1', 7070)
})

provePair('CAP_NET_ADMIN: the own address dialled where another has it by now', async ({ netns, ipv4 }) => {
  await netns.ip(['addr flush dev eth0 to 10.250.0.0/24', 'addr add 10.250.0.99/24 dev eth0'])
  await field.far.netns.ip([`addr add ${ipv4}/32 dev eth0`])
  try {
    return await dialFrom(netns, ipv4, 8080)
  } finally {
    await field.far.netns.ip([`addr del ${ipv4}/32 dev eth0`])
    const restored = [`addr add ${ipv4}/24 dev eth0`, 'route replace default via 10.250.0.254']
    await netns.ip(['addr flush dev eth0 to 10.250.0.0/24', ...restored])
  }
})

/** Its address list then holds the address of another. */
async function proveClaimed(host: LanHost, options: EnrollOptions): Promise<Outcome> {
  await host.netns.ip([`addr add ${field.far.ipv4}/32 dev lo`])
  await field.mesh.enroll(host, options)
  await host.netns.ip([`addr del ${field.far.ipv4}/32 dev lo`])
  return dialFrom(host.netns, field.far.ipv4, 8080)
}

vector('CAP_NET_ADMIN: the address of another on lo while a running pod is enrolled', async () => {
  const without = expectDirect(await dialFar(field, field.twin, { to: field.far.ipv4 }))
  const held = expectDirect(await proveClaimed(field.mesh.host(4), {}))
  return { without, with: `${held}; egressGuard stops it`, limit: true }
})

vector(
  'CAP_NET_ADMIN: the address of another on lo while a running pod is enrolled, with egressGuard',
  async () => {
    const without = expectDirect(await dialFar(field, field.twin, { to: field.far.ipv4 }))
    const held = await proveClaimed(field.mesh.host(5), { conf: { egressGuard: true } })
    return { without, with: expectContained(held) }
  },
)

let inners = 0

provePair('CAP_NET_ADMIN and CAP_SYS_ADMIN: a netns of its own behind the pod', async ({ netns }) => {
  const net = `10.252.${++inners}`
  await using inner = await Netns.create('inner')
  await veth([netns, 'inner'], [inner, 'eth0'])
  await netns.ip([`addr add ${net}.1/24 dev inner`])
  await inner.ip([`addr add ${net}.2/24 dev eth0`, `route add default via ${net}.1`])
  await netns.sysctl({ 'ipv4.ip_forward': 1 })
  await using _nat = await nat(netns, 'postrouting', 'oifname "eth0" masquerade')
  return await dialFrom(inner, field.far.ipv4, 8080)
})

function dnatToFar(ports = '7070'): string {
  return `tcp dport ${ports} dnat to ${field.far.ipv4}:8080`
}

/** The proxy is not asked what it saw: its own connections do not count, as nothing else reaches far. */
function dialFrom(netns: Netns, to: string, port: number, options: readonly string[] = []): Promise<Outcome> {
  const where = { netns, cgroupDir: field.mesh.pods.dir }
  return field.observe(field.server, () => connect(where, to, port, ['--timeout', '700', ...options]))
}

for (const { name, key, options } of families) {
  vector(`what the guard lets pass: the proxy, and all that it carries, ${name}`, async () => {
    const held = await dialFar(field, guarded, { to: field.far[key], options })
    const free = await dialFar(field, field.twin, { to: field.far[key], options })
    await using app = await field.mesh.serve(guarded, 'guarded', [8081])
    const inbound = () => connect(field.at(field.far), guarded[key], 8081, options)
    expectCaptured(await field.observe(app, inbound, { from: guarded }), guarded[key], 8081)
    return { without: expectDirect(free), with: expectCaptured(held, field.far[key], 8080) }
  })
}
