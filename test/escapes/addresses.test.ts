// SPDX-License-Identifier: Apache-2.0
/** Source and destination addresses that a pod may choose, have, or make itself. */
import { afterAll, beforeAll, expect } from 'vitest'
import { endpoint } from '../support/mesh.ts'
import { type LanHost, veth } from '../support/netns.ts'
import { connect } from '../support/sock.ts'
import {
  dialFar,
  expectCaptured,
  expectContained,
  expectDirect,
  Field,
  linkLocal,
  nat,
  proveInbound,
  proveOutbound,
} from './field.ts'
import { vector } from './vector.ts'

const secondary = { pod: ['10.250.0.101', 'fd10:250::101'], twin: ['10.250.0.102', 'fd10:250::102'] } as const
const late = { pod: ['10.250.0.103', 'fd10:250::103'], twin: ['10.250.0.104', 'fd10:250::104'] } as const

let field: Field

beforeAll(async () => {
  field = await Field.create({}, async ({ pod, twin }) => {
    await addAddresses(pod, secondary.pod)
    await addAddresses(twin, secondary.twin)
  })
  await addAddresses(field.pod, late.pod)
  await addAddresses(field.twin, late.twin)
  // One more interface each, to far.
  for (const [host, name, net] of [
    [field.pod, 'net1', '10.251.1'],
    [field.twin, 'net2', '10.251.2'],
  ] as const) {
    await veth([host.netns, 'net1'], [field.far.netns, name])
    await host.netns.ip([`addr add ${net}.1/24 dev net1`])
    await field.far.netns.ip([`addr add ${net}.2/24 dev ${name}`])
  }
})
afterAll(() => field?.dispose())

async function addAddresses(host: LanHost, [ipv4, ipv6]: readonly [string, string]): Promise<void> {
  await host.netns.ip([`addr add ${ipv4}/32 dev eth0`, `addr add ${ipv6}/128 dev eth0 preferred_lft 0 nodad`])
}

/** The pod's and the twin's own kind of address, as source. */
async function proveBound(
  addresses: { readonly pod: string; readonly twin: string },
  more: readonly string[] = [],
) {
  const to = addresses.pod.includes(':') ? field.far.ipv6 : field.far.ipv4
  const from = (address: string) => ({ to, options: ['--bind', endpoint(address, 0), ...more] })
  const without = expectDirect(await dialFar(field, field.twin, from(addresses.twin)))
  const held = await dialFar(field, field.pod, from(addresses.pod))
  return { without, with: expectContained(held), held }
}

for (const [index, key] of (['ipv4', 'ipv6'] as const).entries()) {
  const name = key === 'ipv4' ? 'IPv4' : 'IPv6'
  const both = (from: { pod: readonly string[]; twin: readonly string[] }) => ({
    pod: from.pod[index] ?? '',
    twin: from.twin[index] ?? '',
  })

  vector(`source bound to the pod address, ${name}`, async () => {
    const proof = await proveBound({ pod: field.pod[key], twin: field.twin[key] })
    expect(proof.with).toBe('captured')
    return proof
  })

  vector(`source bound to a secondary address, ${name}`, async () => {
    const proof = await proveBound(both(secondary))
    expect(proof.with).toBe('captured')
    return proof
  })

  vector(`source bound to an address added after ADD, ${name}`, async () => {
    const proof = await proveBound(both(late))
    expect(proof.with).toBe('captured')
    return proof
  })

  vector(`inbound to a secondary address, ${name}`, () =>
    proveInbound(field, (host) => ({ to: both(secondary)[host === field.pod ? 'pod' : 'twin'] })),
  )

  vector(`inbound to an address added after ADD, ${name}`, async () => {
    const proof = await proveInbound(field, (host) => ({
      to: both(late)[host === field.pod ? 'pod' : 'twin'],
    }))
    expect(proof.with).toBe('captured')
    return proof
  })
}

vector('source bound to loopback, with route_localnet and masquerading', async () => {
  await using stack = new AsyncDisposableStack()
  for (const { netns } of [field.pod, field.twin]) {
    await netns.sysctl({ 'ipv4.conf.all.route_localnet': 1 })
    stack.defer(() => netns.sysctl({ 'ipv4.conf.all.route_localnet': 0 }))
    stack.use(await nat(netns, 'postrouting', 'oifname "eth0" masquerade'))
  }
  return await proveBound({ pod: '127.0.0.1', twin: '127.0.0.1' })
})

vector('IP_TRANSPARENT: source bound to a foreign address', async () => {
  const foreign = { pod: '10.250.0.111', twin: '10.250.0.112' }
  await field.pod.netns.ip([`route add local ${foreign.pod} dev lo`])
  await field.twin.netns.ip([`route add local ${foreign.twin} dev lo`])
  return proveBound(foreign, ['--transparent'])
})

vector('an interface added after ADD, outbound', async () => {
  const without = expectDirect(await dialFar(field, field.twin, { to: '10.251.2.2' }))
  const held = await dialFar(field, field.pod, { to: '10.251.1.2' })
  return { without, with: expectCaptured(held, '10.251.1.2', 8080) }
})

vector('an interface added after ADD, outbound by SO_BINDTODEVICE', async () => {
  const options = ['--device', 'net1']
  const without = expectDirect(await dialFar(field, field.twin, { to: '10.251.2.2', options }))
  const held = await dialFar(field, field.pod, { to: '10.251.1.2', options })
  return { without, with: expectContained(held) }
})

vector('an interface added after ADD, inbound', async () => {
  const proof = await proveInbound(field, (host) => ({
    to: host === field.pod ? '10.251.1.1' : '10.251.2.1',
  }))
  expect(proof.with).toBe('captured')
  return proof
})

vector('a call to an own address added after ADD, which goes through the proxy', async () => {
  for (const address of [...late.pod, '10.251.1.1']) {
    const { value, captured } = await field.observe(field.app, () =>
      connect(field.at(field.pod), address, 8080),
    )
    expect(value).toMatchObject({ ok: true, reply: { server: 'app' } })
    expect(captured.map(({ original }) => original)).toEqual([endpoint(address, 8080)])
  }
  return { without: 'reached', with: 'captured' }
})

vector('link-local IPv6, outbound', async () => {
  const to = `${await linkLocal(field.far.netns)}%eth0`
  const where = (host: LanHost) => field.at(host)
  return proveOutbound(field, { to, where })
})

vector('link-local IPv6, inbound', async () => {
  const addresses = { pod: await linkLocal(field.pod.netns), twin: await linkLocal(field.twin.netns) }
  return proveInbound(field, (host) => ({
    to: `${host === field.pod ? addresses.pod : addresses.twin}%eth0`,
  }))
})

for (const [name, to, key] of [
  ['0.0.0.0', '0.0.0.0', 'ipv4'],
  ['::', '::', 'ipv6'],
] as const) {
  vector(`${name}, from a socket bound to the address of the server`, async () => {
    const options = ['--transparent', '--bind', endpoint(field.far[key], 0)]
    const free = await dialFar(field, field.twin, { to, options })
    const held = await dialFar(field, field.pod, { to, options })
    expect([...free.reached, ...held.reached]).toEqual([])
    return { without: `stays in the pod: ${free.value.error}`, with: `stays in the pod: ${held.value.error}` }
  })
}

vector('the own address, taken off the interface; source is another', async () => {
  const without = expectDirect(
    await withoutOwnAddress(field.twin, late.twin[0], () =>
      dialFar(field, field.twin, { to: field.far.ipv4 }),
    ),
  )
  const held = await withoutOwnAddress(field.pod, late.pod[0], () =>
    dialFar(field, field.pod, { to: field.far.ipv4 }),
  )
  return { without, with: expectContained(held) }
})

/** With `other` alone. */
async function withoutOwnAddress<T>(host: LanHost, other: string, act: () => Promise<T>): Promise<T> {
  await host.netns.ip([
    `addr del ${other}/32 dev eth0`,
    'addr flush dev eth0 to 10.250.0.0/24',
    `addr add ${other}/24 dev eth0`,
  ])
  try {
    return await act()
  } finally {
    await host.netns.ip([
      'addr flush dev eth0 to 10.250.0.0/24',
      `addr add ${host.ipv4}/24 dev eth0`,
      'route replace default via 10.250.0.254',
    ])
  }
}
