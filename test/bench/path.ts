// SPDX-License-Identifier: Apache-2.0
/**
 * What applications feel: connections, round trips and bytes through a proxy in the pod's netns, by how they come there.
 * Whole: the proxy is the stand-in for ztunnel, which connects to a server in another netns. Hop: the proxy itself answers,
 * so that only the redirected connection counts.
 */
import { Cgroup } from '../support/cgroup.ts'
import { redirectAsIstio } from '../support/istio-rules.ts'
import { Mesh } from '../support/mesh.ts'
import type { LanHost } from '../support/netns.ts'
import type { Where } from '../support/sock.ts'
import { type Redirector, redirect, redirectors } from './redirectors.ts'
import { budgetMs, compare, type Row, type Samples, type Step, type Suite, takeTurns } from './stats.ts'
import { bench, type Count, echoPort, type Latencies, startEcho, startProxy } from './tool.ts'

const proxyPort = 15001
const workMs = 60

const stretches = ['whole', 'hop'] as const
type Stretch = (typeof stretches)[number]

interface Client {
  readonly redirector: Redirector
  readonly stretch: Stretch
  readonly where: Where
  readonly address: string
  readonly port: number
}

interface Metric {
  readonly name: string
  readonly unit: string
  /** Of the ratio to that contender. */
  readonly targets: Partial<Record<Redirector, number>>
}

const roundTrip = { direct: 1.05, redirect: 0.85, istio: 0.85 }
const metrics: readonly Metric[] = [
  { name: 'connections', unit: 'connections/s', targets: { redirect: 1.15, istio: 1.15 } },
  { name: 'rtt-1B-p50', unit: 'us', targets: roundTrip },
  { name: 'rtt-1B-p99', unit: 'us', targets: {} },
  { name: 'rtt-1KiB-p50', unit: 'us', targets: roundTrip },
  { name: 'rtt-1KiB-p99', unit: 'us', targets: {} },
  { name: 'throughput', unit: 'MB/s', targets: {} },
]

export const path: Suite = {
  name: 'path',
  run: async ({ runs }) => {
    await using stack = new AsyncDisposableStack()
    const clients = await makeClients(stack)
    const samples = await takeTurns(stepsOf(clients), { runs, warmups: 1, budgetMs })
    return stretches.flatMap((stretch) => metrics.flatMap((metric) => rowsOf(stretch, metric, samples)))
  },
}

function rowsOf(stretch: Stretch, { name, unit, targets }: Metric, samples: Samples): Row[] {
  const of = (redirector: Redirector) => samples(sampleName({ stretch, redirector }, name))
  return redirectors
    .filter((redirector) => redirector !== 'ambridge')
    .map((other) => {
      const goal = { id: `path/${stretch}/${name}/${other}`, unit, target: targets[other] ?? null }
      return compare(goal, of('ambridge'), of(other))
    })
}

/** One host for the server, then one for each contender and stretch. */
async function makeClients(stack: AsyncDisposableStack): Promise<Client[]> {
  const mesh = stack.use(await Mesh.create({ hosts: 1 + stretches.length * redirectors.length }))
  const outside = stack.use(Cgroup.create())
  const server = mesh.host(0)
  const echo = await startEcho({ netns: server.netns, cgroupDir: outside.dir }, echoPort)
  stack.defer(() => echo.stop())
  const clients: Client[] = []
  for (const [i, stretch] of stretches.entries()) {
    const hosts = mesh.hosts.slice(1 + i * redirectors.length)
    for (const [n, redirector] of redirectors.entries()) {
      const host = hosts[n]
      if (!host) throw new Error('too few hosts')
      await setUp(redirector, host, mesh, server.ipv4)
      await startListener(stretch, redirector, host, { mesh, outside, server, stack })
      clients.push(clientOf(stretch, redirector, host, { mesh, outside, server }))
    }
  }
  return clients
}

async function setUp(redirector: Redirector, host: LanHost, mesh: Mesh, server: string): Promise<void> {
  if (redirector === 'ambridge') await mesh.enroll(host)
  if (redirector === 'redirect') await redirect(host, server)
  if (redirector === 'istio') await redirectAsIstio(host.netns)
}

interface Field {
  readonly mesh: Mesh
  /** Where no hook of ours is attached. */
  readonly outside: Cgroup
  readonly server: LanHost
}

async function startListener(
  stretch: Stretch,
  redirector: Redirector,
  { netns }: LanHost,
  { mesh, outside, server, stack }: Field & { readonly stack: AsyncDisposableStack },
): Promise<void> {
  const cgroupDir = redirector === 'ambridge' ? mesh.proxy.dir : outside.dir
  const daemon =
    stretch === 'hop'
      ? await startEcho({ netns, cgroupDir }, proxyPort)
      : await startProxy({ cgroupDir }, `${server.ipv4}:${echoPort}`, [netns])
  stack.defer(() => daemon.stop())
}

/** Only the direct one knows of its proxy. */
function clientOf(stretch: Stretch, redirector: Redirector, host: LanHost, field: Field): Client {
  const { mesh, outside, server } = field
  const where = redirector === 'ambridge' ? mesh.at(host) : { netns: host.netns, cgroupDir: outside.dir }
  const isDirect = redirector === 'direct'
  return {
    redirector,
    stretch,
    where,
    address: isDirect ? host.ipv4 : server.ipv4,
    port: isDirect ? proxyPort : echoPort,
  }
}

type Measured = Readonly<Record<string, number>>

/** Keys: names of metrics. */
const commands: readonly ((client: Client) => Promise<Measured>)[] = [
  async (client) => ({ connections: await perSecond(client, 'rate') }),
  (client) => roundTrips(client, 1, '1B'),
  (client) => roundTrips(client, 1024, '1KiB'),
  async (client) => ({ throughput: (await perSecond(client, 'bulk')) / 1e6 }),
]

/** What contenders are compared in is measured close together. */
function stepsOf(clients: readonly Client[]): Step[] {
  return commands.flatMap((command) =>
    clients.map((client) => async () => {
      const values = Object.entries(await command(client))
      return Object.fromEntries(values.map(([metric, value]) => [sampleName(client, metric), value]))
    }),
  )
}

async function perSecond(client: Client, command: string): Promise<number> {
  const { count, ns } = await call<Count>(client, command)
  return (count / ns) * 1e9
}

async function roundTrips(client: Client, size: number, label: string): Promise<Measured> {
  const { p50_ns: p50, p99_ns: p99 } = await call<Latencies>(client, 'rtt', ['--size', String(size)])
  return { [`rtt-${label}-p50`]: p50 / 1000, [`rtt-${label}-p99`]: p99 / 1000 }
}

function call<T>({ where, address, port }: Client, command: string, options: string[] = []): Promise<T> {
  return bench<T>(where, [command, address, port, '--ms', workMs, ...options])
}

function sampleName({ stretch, redirector }: Pick<Client, 'stretch' | 'redirector'>, metric: string): string {
  return `${stretch}/${metric}/${redirector}`
}
