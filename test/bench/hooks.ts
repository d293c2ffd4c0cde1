// SPDX-License-Identifier: Apache-2.0
/** What one run of each program costs, by the kernel's own count, under real connections. */
import { closeSync } from 'node:fs'
import { join } from 'node:path/posix'
import { programInfo } from '../../src/bpf/info.ts'
import { openPin, readLinkPin } from '../../src/bpf/link.ts'
import { pinPaths } from '../../src/linux/bpffs.ts'
import { guardPins, linkPin } from '../../src/pods/withdraw.ts'
import { type Enrolled, type Host, Mesh } from '../support/mesh.ts'
import type { Where } from '../support/sock.ts'
import { enableStats, timing } from './program-stats.ts'
import { attachReferencePrograms, type ReferencePrograms } from './reference-programs.ts'
import { budgetMs, measured, type Samples, type Step, type Suite, takeTurns } from './stats.ts'
import { bench, echoPort, startEcho, startProxy } from './tool.ts'

const closedPort = 9
const connects = 1000
const calls = 1000
const queries = 200
const busyMs = 100

/** Nanoseconds per run; null: for information. */
const targets: Readonly<Record<string, number | null>> = {
  'empty-program': null,
  'storage-program': null,
  'connect4-not-enrolled': 60,
  'connect6-not-enrolled': 60,
  'connect4-enrolled': 150,
  'connect6-enrolled': 150,
  'connect4-enrolled-same-socket': 150,
  sockops: null,
  inbound: null,
  getsockopt: null,
  getpeername4: null,
  sendmsg4: null,
  recvmsg4: null,
  guard: null,
}

export const hooks: Suite = {
  name: 'hooks',
  run: async ({ runs }) => {
    await using stack = new AsyncDisposableStack()
    const field = await makeField(stack)
    stack.use(enableStats())
    const samples = await takeTurns(steps(field), { runs, warmups: 1, budgetMs })
    return rows(samples)
  },
}

function rows(samples: Samples) {
  return Object.entries(targets).map(([name, target]) =>
    measured({ id: `hooks/${name}`, unit: 'ns', target }, samples(name)),
  )
}

interface Field {
  readonly mesh: Mesh
  readonly reference: ReferencePrograms
  /** Not enrolled; another host, where nobody listens. */
  readonly plain: Host
  readonly closed: { readonly ipv4: string; readonly ipv6: string }
  /** Enrolled, without a proxy: what it dials is refused. */
  readonly lonely: Host
  /** Enrolled, with a proxy. */
  readonly pod: Enrolled
  readonly guarded: Enrolled
  /** Address of an echo server that nobody captures. */
  readonly echo: string
}

async function makeField(stack: AsyncDisposableStack): Promise<Field> {
  const mesh = stack.use(await Mesh.create({ hosts: 5, load: ['--guard'] }))
  const [plain, lonely, served, watched, outside] = [0, 1, 2, 3, 4].map((index) => mesh.host(index))
  if (!plain || !lonely || !served || !watched || !outside) throw new Error('five hosts expected')
  await mesh.enroll(lonely)
  const pod = await mesh.enroll(served)
  const guarded = await mesh.enroll(watched, { conf: { egressGuard: true } })
  const echo = await startEcho({ netns: outside.netns }, echoPort)
  stack.defer(() => echo.stop())
  const upstream = `${outside.ipv4}:${echoPort}`
  const proxy = await startProxy({ cgroupDir: mesh.proxy.dir }, upstream, [served.netns, watched.netns])
  stack.defer(() => proxy.stop())
  const reference = stack.use(await attachReferencePrograms())
  return { mesh, reference, plain, closed: outside, lonely, pod, guarded, echo: outside.ipv4 }
}

function steps(field: Field): Step[] {
  const { mesh, plain, lonely, closed, reference } = field
  const id = (program: string): number => programId(mesh, program)
  const refuse = (where: Where, address: string, ...options: string[]) => {
    return () => bench(where, ['refuse', address, closedPort, '--count', connects, ...options])
  }
  const [ipv4, ipv6] = [id('connect4'), id('connect6')]
  const without = { netns: plain.netns, cgroupDir: reference.cgroupDir }
  const references = { 'empty-program': reference.empty, 'storage-program': reference.storage }
  return [
    timing(references, refuse(without, closed.ipv4)),
    timing({ 'connect4-not-enrolled': ipv4 }, refuse(mesh.at(plain), closed.ipv4)),
    timing({ 'connect6-not-enrolled': ipv6 }, refuse(mesh.at(plain), closed.ipv6)),
    timing({ 'connect4-enrolled': ipv4 }, refuse(mesh.at(lonely), closed.ipv4)),
    timing({ 'connect6-enrolled': ipv6 }, refuse(mesh.at(lonely), closed.ipv6)),
    timing({ 'connect4-enrolled-same-socket': ipv4 }, refuse(mesh.at(lonely), closed.ipv4, '--reuse')),
    ...proxiedSteps(field),
  ]
}

/** Where the connection comes about. */
function proxiedSteps({ mesh, pod, guarded, echo }: Field): Step[] {
  const id = (program: string): number => programId(mesh, program)
  const at = ({ netns }: Enrolled): Where => ({ netns: { path: netns }, cgroupDir: mesh.pods.dir })
  const connected = {
    sockops: id('sockops'),
    getsockopt: id('getsockopt'),
    inbound: readLinkPin(linkPin(mesh.bpffs, pod)).programId,
  }
  const peername = { getpeername4: id('getpeername4') }
  const datagrams = { sendmsg4: id('sendmsg4'), recvmsg4: id('recvmsg4') }
  const guard = { guard: guardId(mesh, guarded) }
  return [
    timing(connected, () => bench(at(pod), ['rate', echo, echoPort, '--ms', busyMs])),
    timing(peername, () => bench(at(pod), ['peername', echo, echoPort, '--count', calls])),
    timing(datagrams, () => bench(at(pod), ['query', echo, 53, '--count', queries])),
    timing(guard, () => bench(at(guarded), ['rtt', echo, echoPort, '--ms', busyMs])),
  ]
}

/** `program`: without its prefix. */
function programId({ bpffs }: Mesh, program: string): number {
  const fd = openPin(join(pinPaths(bpffs).progs, `ambridge_${program}`))
  try {
    return programInfo(fd).id
  } finally {
    closeSync(fd)
  }
}

function guardId({ bpffs }: Mesh, pod: Enrolled): number {
  const [pin] = guardPins(bpffs, pod)
  if (pin === undefined) throw new Error(`pod ${pod.containerId} has no guard`)
  return readLinkPin(pin).programId
}
