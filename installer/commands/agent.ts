// SPDX-License-Identifier: Apache-2.0
import { setFlagsFromString } from 'node:v8'
import { Command, Option } from 'commander'
import { createLogger, winstonSink } from '../../src/log.ts'
import { RemedyError } from '../../src/remedy.ts'
import { entryWith } from '../agent/entry.ts'
import { parseLogLevels } from '../agent/log-levels.ts'
import {
  type AgentOptions,
  parseHttp,
  parseNamespaces,
  parseZtunnel,
  readSelectors,
} from '../agent/options.ts'
import { requireCgroupRoot } from '../programs/cgroups.ts'
import { usualKubeletCgroup } from '../programs/plan.ts'
import type { LoadOptions } from '../programs/settings.ts'
import { entryText, ownSource } from './install.ts'
import { loadOptions } from './load.ts'
import { bpffsOption } from './options.ts'

interface Flags extends Omit<LoadOptions, 'proxyCgroups'> {
  readonly proxyCgroup?: string[]
  readonly nodeName?: string
  readonly kubeconfig?: string
  readonly install: boolean
  readonly binDir: string
  readonly confDir: string
  readonly confName?: string
  readonly entry?: string
  readonly excludeNamespaces?: string
  readonly selectors?: string
  readonly ztunnel: string
  readonly socket: string
  readonly zds: string
  readonly enrollmentFile: string
  readonly http: string
  readonly reconcileSeconds: number
  readonly logLevel: string
}

/** `ambridge agent`: one on each node, until SIGTERM. */
export function agentCommand(): Command {
  const command = new Command('agent')
    .description(
      'run on each node: install, load, enroll pods by label, serve ztunnel, repair; until SIGTERM',
    )
    .addOption(new Option('--node-name <name>', 'the node in the cluster').env('NODE_NAME'))
    .option('--kubeconfig <file>', 'how to reach the API server (default: the service account of the pod)')
    .option('--no-install', 'leave plugin and conflist alone')
    .option('--bin-dir <dir>', 'plugins of the container runtime', '/opt/cni/bin')
    .option('--conf-dir <dir>', 'network configuration of the container runtime', '/etc/cni/net.d')
    .option('--conf-name <name>', 'file of --conf-dir to extend (default: the first valid one by name)')
    .option('--entry <file|json>', 'entry of the plugin in the conflist')
    .option('--exclude-namespaces <list>', 'whose pods are never enrolled (default: kube-system)')
    .addOption(
      new Option('--selectors <file|yaml>', 'which pods are enrolled (default: as Istio)').env(
        'AMBIENT_ENABLEMENT_SELECTOR',
      ),
    )
    .option('--ztunnel <namespace/name>', 'service account of ztunnel', 'istio-system/ztunnel')
    .option('--socket <path>', 'where the plugin asks', '/run/ambridge/agent.sock')
    .option('--zds <path>', 'where ztunnel connects', '/var/run/ztunnel/ztunnel.sock')
    .option(
      '--enrollment-file <path>',
      'what the plugin goes by while no agent answers',
      '/var/lib/ambridge/enrollment.json',
    )
    .option('--http <address:port>', 'for /healthz, /readyz and /metrics', '127.0.0.1:15014')
    .addOption(
      new Option('--reconcile-seconds <n>', 'how often everything is compared')
        .argParser(seconds)
        .default(30),
    )
    .option('--log-level <levels>', 'error, warn, info or debug; of one module: info,zds:debug', 'info')
  for (const option of loadOptions()) command.addOption(option)
  return command.addOption(bpffsOption()).action(run)
}

async function run(flags: Flags): Promise<void> {
  // Else the heap for short-lived objects grows to 32 MiB when many pods change at once, and stays there.
  setFlagsFromString('--semi-space-growth-factor=1')
  const options = agentOptions(flags)
  // The client of the API server: other commands must not pay for it.
  const { runAgent } = await import('../agent/agent.ts')
  const sink = winstonSink({})
  const { levelOf } = parseLogLevels(flags.logLevel)
  const stop = new AbortController()
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => stop.abort())
  const moduleLog = (name: string) => createLogger(levelOf(name), sink, { module: name })
  const log = moduleLog('agent')
  try {
    await runAgent({ options, source: ownSource(), log, moduleLog }, stop.signal)
  } finally {
    await sink.flush()
  }
}

function agentOptions(flags: Flags): AgentOptions {
  const { nodeName, kubeconfig, install, socket, zds, enrollmentFile, reconcileSeconds } = flags
  if (!nodeName) {
    throw new RemedyError('--node-name is missing', 'name the node, or set NODE_NAME, as the DaemonSet does')
  }
  const load = loadFlags(flags)
  const exclusions = flags.excludeNamespaces
  const excludeNamespaces = exclusions === undefined ? undefined : parseNamespaces(exclusions)
  const shared = { bpffs: load.bpffs, socket, enrollmentFile, excludeNamespaces }
  return {
    nodeName,
    ...defined({ kubeconfig, install: install ? installFlags(flags) : undefined }),
    load,
    entry: entryWith(flags.entry === undefined ? undefined : entryText(flags.entry), shared),
    selectors: readSelectors(flags.selectors),
    ztunnel: parseZtunnel(flags.ztunnel),
    socket,
    zds,
    enrollmentFile,
    http: parseHttp(flags.http),
    reconcileSeconds,
  }
}

function loadFlags(flags: Flags): LoadOptions {
  const { bpffs, cgroup, proxyIdentity, sharedProxyNetns, sidecar, guard } = flags
  const { probes = defaultProbes(flags), kubeletCgroup, kubeletUid, proxyCgroup = [] } = flags
  const given = { cgroup, proxyIdentity, sharedProxyNetns, sidecar, guard, probes, kubeletCgroup, kubeletUid }
  return { bpffs, proxyCgroups: proxyCgroup, ...defined(given) }
}

/** Without a cgroup that tells the kubelet, every process of the node may probe: as with istio-cni. */
function defaultProbes({ kubeletCgroup }: Flags): LoadOptions['probes'] {
  const root = requireCgroupRoot()
  return (kubeletCgroup ?? usualKubeletCgroup(root)) === undefined ? 'any-host-socket' : 'kubelet'
}

function installFlags({ binDir, confDir, confName }: Flags) {
  return { binDir, confDir, ...defined({ confName }) }
}

/** Without the keys that were not given: of the programs, they keep what is loaded. */
function defined<T extends object>(options: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as never
}

function seconds(text: string): number {
  if (/^[1-9]\d{0,4}$/.test(text)) return Number(text)
  throw new RemedyError(
    `--reconcile-seconds: ${JSON.stringify(text)} is not a number of seconds`,
    'such as: 30',
  )
}
