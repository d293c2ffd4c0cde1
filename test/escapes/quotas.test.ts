// SPDX-License-Identifier: Apache-2.0
/** Exhaustion: floods of connects that nobody answers, and SYN cookies. */
import { afterAll, beforeAll, expect } from 'vitest'
import { Store } from '../../src/bpf/store.ts'
import { pinPaths } from '../../src/linux/bpffs.ts'
import { waitFor } from '../support/exec.ts'
import { families } from '../support/mesh.ts'
import type { LanHost } from '../support/netns.ts'
import { connect, startOwned, toolPath } from '../support/sock.ts'
import { ZtunnelStandin } from '../support/standin.ts'
import { dialFar, dialIn, expectContained, expectDirect, Field } from './field.ts'
import { vector } from './vector.ts'

/** PENDING_QUOTA in bpf/layout.h */
const quota = 8192
const more = quota + 800

let field: Field
/** Enrolled too, with a proxy of its own that accepts nothing. */
let flooder: LanHost
let flooderCookie: bigint
let stalled: ZtunnelStandin

beforeAll(async () => {
  field = await Field.create({ hosts: 4 })
  flooder = field.mesh.host(3)
  const enrolled = await field.mesh.enroll(flooder)
  flooderCookie = BigInt((await field.mesh.statusOf(enrolled))?.netnsCookie ?? 0)
  await field.standin.del(flooder.netns.path)
  stalled = await ZtunnelStandin.start({ cgroupDir: field.mesh.proxy.dir, name: 'stalled' })
  await stalled.add(flooder.netns.path)
  await stalled.stall()
})
afterAll(async () => {
  await stalled?.stop()
  await field?.dispose()
})

function countPending(): number {
  using store = new Store(pinPaths(field.mesh.bpffs).maps)
  return Number(store.pending.get(flooderCookie) ?? 0n)
}

/** Begins that many connects; they are held until it is disposed. */
async function flood(from: LanHost, to: string, port: number): Promise<AsyncDisposable> {
  const command = [await toolPath('sock'), 'flood', to, String(port), '--count', String(more)]
  const owned = await startOwned('flood', field.at(from), command)
  await waitFor('the report of sock flood', () => owned.log().includes('\n'), { timeoutMs: 30_000 })
  return { [Symbol.asyncDispose]: owned.stop }
}

/** The pod next to the flooder is served as ever. */
async function proveUndisturbed(to: string, port: number) {
  {
    await using _flood = await flood(flooder, to, port)
    expect(countPending()).toBeGreaterThan(quota - 200)
    expect(countPending()).toBeLessThanOrEqual(quota)
    for (let i = 0; i < 20; i++) {
      expect(expectContained(await dialFar(field, field.pod, { to: field.far.ipv4 }))).toBe('captured')
      expect(expectContained(await dialIn(field, field.pod, { to: field.pod.ipv4 }))).toBe('captured')
    }
    expect(await connect(field.at(field.pod), field.pod.ipv4, 8080)).toMatchObject({ ok: true })
  }
  await waitFor('an empty table of handshakes', () => countPending() === 0)
  return { without: 'does not apply', with: `${quota} at most; the other pod is undisturbed` }
}

vector('a flood of captured connects, to evict the handshakes of another pod', () =>
  proveUndisturbed(field.far.ipv4, 8080),
)
vector('a flood of connects to the own address, to evict the handshakes of another pod', () =>
  proveUndisturbed(flooder.ipv4, 15001),
)

for (const { name, key, options } of families) {
  vector(`SYN cookies, outbound, ${name}`, () =>
    proveWithCookies((host) => dialFar(field, host, { to: field.far[key], options })),
  )
  vector(`SYN cookies, inbound, ${name}`, () =>
    proveWithCookies((host) => dialIn(field, host, { to: host[key], options })),
  )
}

async function proveWithCookies(dial: (host: LanHost) => ReturnType<typeof dialFar>) {
  const hosts = [field.pod, field.twin, field.far]
  for (const { netns } of hosts) await netns.sysctl({ 'ipv4.tcp_syncookies': 2 })
  try {
    const without = expectDirect(await dial(field.twin))
    const earlier = await countCookies(field.pod)
    const held = await dial(field.pod)
    expect(await countCookies(field.pod), 'cookies that came back to the pod').toBeGreaterThan(earlier)
    return { without, with: expectContained(held) }
  } finally {
    for (const { netns } of hosts) await netns.sysctl({ 'ipv4.tcp_syncookies': 1 })
  }
}

async function countCookies({ netns }: LanHost): Promise<number> {
  const text = await netns.run('nstat', ['-asz', 'TcpExtSyncookiesRecv'])
  return Number(/SyncookiesRecv\s+(\d+)/.exec(text)?.[1])
}
