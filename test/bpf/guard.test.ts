// SPDX-License-Identifier: Apache-2.0
/** The egress guard: TCP that a pod makes by hand does not leave it, and all else does. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { pinPaths } from '../../src/linux/bpffs.ts'
import { tryCni } from '../support/ambridge.ts'
import { run, waitFor } from '../support/exec.ts'
import { type Enrolled, endpoint, families, ipOf, Mesh, watch } from '../support/mesh.ts'
import type { LanHost } from '../support/netns.ts'
import { connect, connectCrowd, sock } from '../support/sock.ts'
import type { ZtunnelStandin } from '../support/standin.ts'
import { ethernet, ethertypes, icmp, icmp6, ipv4, ipv6, newMark, protocols, udp } from './frames.ts'
import { type Attempt, type Between, harmless, hidden, packets } from './guard-packets.ts'
import { BackgroundSock } from './load.ts'

let mesh: Mesh
let guarded: LanHost
/** Enrolled, too, without the guard. */
let free: LanHost
let far: LanHost
let enrolled: Enrolled
let standin: ZtunnelStandin
let sniffer: BackgroundSock

beforeAll(async () => {
  mesh = await Mesh.create({ hosts: 5, load: ['--guard'] })
  ;[guarded, free, far] = [mesh.host(0), mesh.host(1), mesh.host(2)]
  standin = await mesh.startStandin()
  enrolled = await mesh.enroll(guarded, { conf: { egressGuard: true } })
  await mesh.enroll(free)
  await mesh.serve(far, 'far', [8080])
  await mesh.serve(guarded, 'app', [8080])
  sniffer = await BackgroundSock.start(mesh.at(far), ['sniff', 'eth0'])
  await sniffer.line(0)
})
afterAll(async () => {
  await sniffer?.stop()
  await mesh?.dispose()
})

function between(host: LanHost): Between {
  return { four: { from: host.ipv4, to: far.ipv4 }, six: { from: host.ipv6, to: far.ipv6 } }
}

interface SendReport {
  readonly sent: number
  readonly error: string
}

async function send(host: LanHost, bytes: Buffer, options: readonly string[]): Promise<SendReport> {
  const args = ['frame', 'eth0', bytes.toString('hex'), ...options]
  const [report] = await sock<SendReport>(mesh.at(host), args)
  if (!report) throw new Error('sock frame reported nothing')
  return report
}

/** Does what is sent arrive at far? UDP, which always does, follows it on its way. */
async function arrives(
  host: LanHost,
  { make, claim }: Attempt,
  options: readonly string[] = [],
): Promise<boolean> {
  const ends = between(host)
  const [mark, last] = [newMark(), newMark()]
  const claimed = claim === undefined ? [] : ['--protocol', String(claim)]
  const { sent, error } = await send(host, make(ends, mark), [...options, ...claimed])
  // A packet socket is told when its packet is dropped.
  expect(sent === 1 || error === 'ENOBUFS', error).toBe(true)
  const follower = ipv4(ends.four, protocols.udp, udp(ends.four, last))
  const isIp = options.includes('--ip')
  await send(host, isIp ? follower : ethernet(ethertypes.ipv4, follower), options)
  const has = (wanted: Buffer): boolean => frames().some((frame) => frame.includes(wanted.toString('hex')))
  await waitFor('the packet that follows', () => has(last))
  return has(mark)
}

/** All that came to far, as hex. */
function frames(): string[] {
  return sniffer.lines<{ frame?: string }>().flatMap(({ frame }) => frame ?? [])
}

test.for(hidden)('a packet socket cannot send $what', async (attempt) => {
  expect(await arrives(free, attempt), 'without the guard').toBe(true)
  expect(await arrives(guarded, attempt), 'with the guard').toBe(false)
})

test.for(packets)('a raw socket cannot send $what', async (attempt) => {
  expect(await arrives(free, attempt, ['--ip']), 'without the guard').toBe(true)
  expect(await arrives(guarded, attempt, ['--ip']), 'with the guard').toBe(false)
})

test.for(harmless)('a packet socket can send $what', async (attempt) => {
  expect(await arrives(guarded, attempt)).toBe(true)
})

test('what is dropped is counted', async () => {
  const earlier = (await mesh.countersOf(enrolled))['rawRefused'] ?? 0
  for (const packet of packets) await arrives(guarded, packet, ['--ip'])
  expect((await mesh.countersOf(enrolled))['rawRefused']).toBe(earlier + packets.length)
})

test('the ways round the hook are closed to the pod', async () => {
  expect(await sock(mesh.at(free), ['shortcuts'])).toEqual([{ qdisc_bypass: '', xdp: '' }])
  expect(await sock(mesh.at(guarded), ['shortcuts'])).toEqual([{ qdisc_bypass: 'EPERM', xdp: 'EPERM' }])
})

/** An echo request, and its answer. */
async function ping(key: 'ipv4' | 'ipv6', from: LanHost, to: LanHost): Promise<void> {
  const ends = { from: from[key], to: to[key] }
  const mark = newMark()
  const request =
    key === 'ipv4'
      ? ipv4(ends, protocols.icmp, icmp(8, mark))
      : ipv6(ends, protocols.icmp6, icmp6(ends, 128, mark))
  await using answers = await BackgroundSock.start(mesh.at(from), ['sniff', 'eth0'])
  await answers.line(0)
  await send(from, request, ['--ip'])
  const isAnswer = ({ frame }: { frame?: string }): boolean => frame?.includes(mark.toString('hex')) === true
  await waitFor('the answer', () => answers.lines<{ frame?: string }>().some(isAnswer))
}

test.for([
  { key: 'ipv4', family: '-4' },
  { key: 'ipv6', family: '-6' },
] as const)('the pod finds its neighbours and pings them, over $key', async ({ key, family }) => {
  for (const [from, to] of [
    [guarded, far],
    [far, guarded],
  ] as const) {
    await from.netns.run('ip', [family, 'neigh', 'flush', 'dev', 'eth0'])
    await ping(key, from, to)
  }
})

describe.for(families)('over $name', ({ key, options }) => {
  test('captured connections and HBONE are served as ever', async () => {
    const connections = watch(standin)
    const out = await connect(mesh.at(guarded), far[key], 8080, options)
    expect(out).toMatchObject({ ok: true, reply: { server: 'far' } })
    const into = await connect(mesh.at(far), guarded[key], 8080, options)
    expect(into).toMatchObject({ ok: true, reply: { server: 'app' } })
    expect(ipOf(into.reply?.peer)).toBe(far[key])
    const tunnel = [...options, '--hbone', endpoint(guarded[key], 8080)]
    expect(await connect(mesh.at(far), guarded[key], 15008, tunnel)).toMatchObject({ ok: true })
    await waitFor('all at the proxy', () => connections().length === 3)
    expect(connections().map(({ listener }) => listener)).toEqual([15001, 15006, 15008])
  })

  test('a large amount of data comes through', async () => {
    const text = 'x'.repeat(4000)
    const all = await Promise.all(
      Array.from({ length: 8 }, () =>
        connect(mesh.at(guarded), far[key], 8080, [...options, '--send', text]),
      ),
    )
    expect(all.map(({ echo }) => echo)).toEqual(Array.from({ length: 8 }, () => text))
  })
})

test('the kernel refuses for the pod what goes past the proxy to a closed port', async () => {
  const annotations = { 'ambient.istio.io/bypass-inbound-capture': 'true' }
  const bypassed = mesh.host(3)
  await mesh.enroll(bypassed, { conf: { egressGuard: true }, annotations })
  for (const key of ['ipv4', 'ipv6'] as const) {
    const result = await connect(mesh.at(far), bypassed[key], 9)
    expect(result).toMatchObject({ ok: false, error: 'ECONNREFUSED', at: 'connect' })
  }
})

test('DEL removes the links, and the pod may send again', async () => {
  const links = (): string[] => readdirSync(pinPaths(mesh.bpffs).guard)
  const other = mesh.host(4)
  const earlier = links()
  const pod = await mesh.enroll(other, { conf: { egressGuard: true } })
  expect(links()).toHaveLength(earlier.length + 1)
  const [attempt] = hidden
  if (!attempt) throw new Error('nothing to try')
  expect(await arrives(other, attempt)).toBe(false)
  await mesh.withdraw(pod)
  expect(links()).toEqual(earlier)
  expect(await other.netns.run('bpftool', ['net', 'show'])).not.toContain('ambridge_guard')
  expect(await arrives(other, attempt)).toBe(true)
})

test('a pod that asks for the guard is refused where it is not loaded', async () => {
  await using plain = await Mesh.create({ hosts: 1 })
  const { netns } = plain.host(0)
  const call = { containerId: netns.name, netns: netns.path, ifname: 'eth0' }
  const conf = plain.conf({ conf: { egressGuard: true } })
  const { code, output } = await tryCni('ADD', { ...call, conf })
  expect(code).toBe(1)
  expect(output).toMatchObject({ code: 11 })
  expect(JSON.stringify(output)).toContain('ambridge load --guard')
  expect((await plain.status()).pods).toEqual([])
})

interface Cost {
  readonly calls: number
  readonly nanoseconds: number
}

/** What the program of this link has taken so far. */
async function costOf(pin: string): Promise<Cost> {
  const link = JSON.parse(await run('bpftool', ['-j', 'link', 'show', 'pinned', pin])) as { prog_id: number }
  const shown = await run('bpftool', ['-j', 'prog', 'show', 'id', String(link.prog_id)])
  const { run_cnt: calls = 0, run_time_ns: nanoseconds = 0 } = JSON.parse(shown) as Record<string, number>
  return { calls, nanoseconds }
}

/** Of each call while something is done. */
async function measure(
  pin: string,
  act: () => Promise<unknown>,
): Promise<{ calls: number; nsPerCall: number }> {
  const before = await costOf(pin)
  await act()
  const after = await costOf(pin)
  const calls = after.calls - before.calls
  return { calls, nsPerCall: Math.round((after.nanoseconds - before.nanoseconds) / calls) }
}

test('the cost of a packet, and of a call of setsockopt, is told', async () => {
  const switchFile = '/proc/sys/kernel/bpf_stats_enabled'
  const setting = readFileSync(switchFile, 'utf8')
  const { guard, links } = pinPaths(mesh.bpffs)
  const [guardLink] = readdirSync(guard)
  const optionLink = readdirSync(links).find((name) => name.includes('setsockopt'))
  const ends = between(guarded)
  const frame = ethernet(ethertypes.ipv4, ipv4(ends.four, protocols.udp, udp(ends.four, newMark())))
  const crowd = () => connectCrowd(mesh.at(guarded), far.ipv4, 8080, 1000)
  writeFileSync(switchFile, '1')
  try {
    const figures = {
      'guard, packet socket': await measure(`${guard}/${guardLink}`, () =>
        send(guarded, frame, ['--repeat', '20000']),
      ),
      'guard, captured TCP': await measure(`${guard}/${guardLink}`, crowd),
      setsockopt: await measure(`${links}/${optionLink}`, crowd),
    }
    process.stdout.write(`cost: ${JSON.stringify(figures)}\n`)
    for (const { calls } of Object.values(figures)) expect(calls).toBeGreaterThan(1000)
  } finally {
    writeFileSync(switchFile, setting)
  }
})
