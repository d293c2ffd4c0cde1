// SPDX-License-Identifier: Apache-2.0
/**
 * Two nodes on one segment, each with a real containerd: pods behind a bridge on one, behind macvlan on the other, ambridge last in both
 * chains. Every kind of pod talks to every other in both ambient modes; meanwhile nobody's network rules may change.
 */
import { waitFor } from '../support/exec.ts'
import { Lan } from '../support/lan.ts'
import { type Family, families } from '../support/mesh.ts'
import { snapshotNetworkRules } from '../support/netns.ts'
import { runPod } from '../support/pods.ts'
import type { ZtunnelStandin } from '../support/standin.ts'
import { appPort, dial, type MeshPod, type Route, type Row } from './dial.ts'
import { enrolling, MeshNode, type Mode } from './mesh-node.ts'
import { checkRules, type RulesCheck, readRules } from './rules.ts'

export const modes: readonly Mode[] = ['ambient', 'ambient-shared']
export const chains = ['bridge', 'macvlan'] as const

export interface ScenarioResult {
  readonly rows: readonly Row[]
  readonly rules: readonly RulesCheck[]
}

export interface ScenarioOptions {
  /** Told what begins. */
  readonly progress?: (step: string) => void
  /** Once aborted, nothing new is made. */
  readonly signal?: AbortSignal
}

/** A node in one mode. */
interface Stage {
  readonly mesh: MeshNode
  readonly mode: Mode
  readonly proxy: ZtunnelStandin
  readonly client: MeshPod
  readonly server: MeshPod
  readonly outsider: MeshPod
}

/** From nothing to nothing. */
export async function runScenario(options: ScenarioOptions = {}): Promise<ScenarioResult> {
  const { progress = () => {}, signal } = options
  await using stack = new AsyncDisposableStack()
  progress('two nodes with containerd')
  const lan = stack.use(await Lan.create())
  const nodes = await Promise.all(
    chains.map(async (chain) => stack.use(await MeshNode.start(chain, { lan, keepsRules: true }))),
  )
  const netns = [lan.netns, ...nodes.map(({ node }) => node.netns)]
  const before = await Promise.all(netns.map(({ path }) => snapshotNetworkRules(path)))
  const results: ScenarioResult[] = []
  for (const mode of modes) {
    signal?.throwIfAborted()
    progress(`mode ${mode}: install, load, start the pods`)
    const stages = await Promise.all(nodes.map((mesh) => setUp(mesh, mode, signal)))
    progress(`mode ${mode}: connections`)
    results.push({ rows: await dialAll(stages, signal), rules: await stageRules(stages) })
    await Promise.all(stages.map(tearDown))
  }
  progress('network rules')
  const names = ['the segment', ...chains.map((chain) => `node with ${chain}, pods gone`)]
  const rules = netns.map(({ path }, i) => checkRules(names[i] ?? '', before[i] ?? '', path))
  results.push({ rows: [], rules: await Promise.all(rules) })
  return { rows: results.flatMap((each) => each.rows), rules: results.flatMap((each) => each.rules) }
}

/** One after the other, so that the rules before a pod's ADD are those after the previous one's. */
async function setUp(mesh: MeshNode, mode: Mode, signal: AbortSignal | undefined): Promise<Stage> {
  await mesh.install(mode)
  await mesh.load()
  const start = (name: string, annotations?: Readonly<Record<string, string>>): Promise<MeshPod> => {
    signal?.throwIfAborted()
    return startPod(mesh, name, annotations)
  }
  const outsider = await start('outsider')
  const client = await start('client', enrolling[0])
  const server = await start('server', enrolling[1])
  const proxy = await mesh.startProxy(mode, [client.pod, server.pod])
  return { mesh, mode, proxy, client, server, outsider }
}

/** Client and server in one. */
async function startPod(
  { node }: MeshNode,
  name: string,
  annotations?: Readonly<Record<string, string>>,
): Promise<MeshPod> {
  const command = ['/bin/sock', 'serve', '--name', name, '--port', String(appPort)]
  const pod = await runPod(node, { name, command, ...(annotations ? { annotations } : {}) })
  await waitFor(`the server of pod ${name}`, () => pod.log().includes('"listening"'))
  return { pod, enrolled: annotations !== undefined }
}

async function dialAll(stages: readonly Stage[], signal: AbortSignal | undefined): Promise<Row[]> {
  const onNodes = await Promise.all(stages.map((stage) => dialEach(routesOn(stage), signal)))
  return [...onNodes.flat(), ...(await dialEach(routesBetween(stages), signal))]
}

async function dialEach(routes: readonly Route[], signal: AbortSignal | undefined): Promise<Row[]> {
  const rows: Row[] = []
  for (const [route, family] of pairs(routes, families)) {
    signal?.throwIfAborted()
    rows.push(await dial(route, family))
  }
  return rows
}

function pairs(routes: readonly Route[], all: readonly Family[]): [Route, Family][] {
  return routes.flatMap((route) => all.map((family): [Route, Family] => [route, family]))
}

function routesOn({ mesh, mode, proxy, client, server, outsider }: Stage): Route[] {
  const common = { chain: mesh.chain, mode, proxies: [proxy], ztunnelPod: mesh.ztunnelPod }
  return [
    { ...common, client, server },
    { ...common, client: outsider, server },
    { ...common, client, server: outsider },
  ]
}

/** In mode ambient-shared this takes HBONE between the proxies, which the stand-in lacks. */
function routesBetween(stages: readonly Stage[]): Route[] {
  const [a, b] = stages
  if (!a || !b || a.mode !== 'ambient') return []
  return [[a, b] as const, [b, a] as const].map(([from, to]) => ({
    chain: `${from.mesh.chain} > ${to.mesh.chain}`,
    mode: from.mode,
    client: from.client,
    server: to.server,
    proxies: [from.proxy, to.proxy],
    ztunnelPod: from.mesh.ztunnelPod,
  }))
}

/** With the pods up and after their traffic, against just before ambridge got them. */
async function stageRules(stages: readonly Stage[]): Promise<RulesCheck[]> {
  const checks = stages.flatMap(({ mesh, mode, client, server, outsider }) => {
    const what = `${mesh.chain}, ${mode}`
    const last = readRules(mesh.rulesBefore(server.pod, 'node'))
    return [
      ...[client, server, outsider].map(({ pod }) =>
        checkRules(`pod ${pod.name} (${what})`, readRules(mesh.rulesBefore(pod, 'pod')), pod.netnsPath),
      ),
      checkRules(`node with ${what}`, last, mesh.node.netns.path),
    ]
  })
  return Promise.all(checks)
}

async function tearDown({ proxy, client, server, outsider }: Stage): Promise<void> {
  await proxy.stop()
  for (const { pod } of [client, server, outsider]) await pod.remove()
}
