// SPDX-License-Identifier: Apache-2.0
/** `ambridge agent`: its parts, in the order in which they must be there. */
import { mkdirSync } from 'node:fs'
import { dirname } from 'node:path/posix'
import { AgentServer } from '../../src/agent-api/server.ts'
import { Cluster } from '../../src/k8s/cluster.ts'
import { Poller } from '../../src/linux/poller.ts'
import type { Logger } from '../../src/log.ts'
import { ZdsServer } from '../../src/zds/server.ts'
import type { InstallSource } from '../commands/install.ts'
import { load } from '../programs/load.ts'
import { EnrollmentWriter } from './enrollment-writer.ts'
import { Host } from './host.ts'
import { addressOf, serveHttp } from './http.ts'
import type { ModuleName } from './log-levels.ts'
import { createMetrics } from './metrics.ts'
import type { AgentNode } from './node.ts'
import { type AgentOptions, policyOf } from './options.ts'
import { PluginRequests } from './plugin-requests.ts'
import { PodSync } from './pod-sync.ts'
import { Proxies } from './proxies.ts'
import { Reconciler } from './reconcile.ts'
import { Serial } from './serial.ts'
import { requireSingle } from './single.ts'
import { Workloads } from './workloads.ts'

export interface AgentParts {
  readonly options: AgentOptions
  readonly source: InstallSource
  readonly log: Logger
  moduleLog(name: ModuleName): Logger
}

/** Resolves when `stop` is aborted and everything is closed. Pods stay captured: programs, maps and links stay. */
export async function runAgent(parts: AgentParts, stop: AbortSignal): Promise<void> {
  const { options, log } = parts
  const stopped = new Promise<void>((resolve) => {
    stop.addEventListener('abort', () => resolve(), { once: true })
  })
  requireSingle(options.socket)
  {
    await using agent = new Agent(parts)
    const steps = load(options.load).filter(({ result }) => result !== 'already there')
    log.info('programs are loaded', { changes: steps.length })
    await agent.serveHttp()
    await Promise.race([agent.knowPods(), stopped])
    if (!stop.aborted) {
      agent.listen()
      await agent.keepNode()
      log.info('agent is running', { node: options.nodeName, zds: options.zds, socket: options.socket })
      await stopped
    }
    log.info('asked to stop')
  }
  log.info('agent stops')
}

class Agent implements AsyncDisposable {
  readonly #parts: AgentParts
  readonly #stack = new AsyncDisposableStack()
  readonly #metrics = createMetrics({
    directReads: () => this.#cluster.directReads,
    pods: () => this.#workloads.counts(),
  })
  readonly #workloads = this.#stack.use(new Workloads())
  readonly #cluster: Cluster
  readonly #node: AgentNode
  readonly #pods: PodSync
  readonly #enrollment: EnrollmentWriter
  readonly #proxies: Proxies
  #zds: ZdsServer | undefined
  #host: Host | undefined
  #reconciler: Reconciler | undefined

  constructor(parts: AgentParts) {
    const { options, moduleLog } = parts
    this.#parts = parts
    this.#cluster = this.#stack.use(this.#connect())
    this.#proxies = new Proxies(this.#cluster, options)
    this.#node = {
      cluster: this.#cluster,
      workloads: this.#workloads,
      serial: new Serial(),
      rules: {
        policy: policyOf(options.entry),
        selectors: options.selectors,
        ztunnel: options.ztunnel,
        sidecar: options.load.sidecar ?? false,
      },
      bpffs: options.load.bpffs,
      log: moduleLog('pods'),
      metrics: this.#metrics,
    }
    this.#pods = this.#stack.use(new PodSync(this.#node))
    this.#enrollment = this.#stack.use(new EnrollmentWriter(this.#node, options))
  }

  #connect(): Cluster {
    const { options, moduleLog } = this.#parts
    const { kubeconfig, nodeName } = options
    return Cluster.connect({
      ...(kubeconfig === undefined ? {} : { kubeconfig }),
      nodeName,
      log: moduleLog('k8s'),
      onPod: (now, before) => {
        for (const uid of new Set([before?.uid, now?.uid])) if (uid !== undefined) void this.#pods.sync(uid)
        this.#enrollment.changed()
      },
      onNamespace: () => {
        void this.#pods.syncAll()
        this.#enrollment.changed()
      },
    })
  }

  async serveHttp(): Promise<void> {
    const { options, log } = this.#parts
    const problems = () => this.#problems()
    const server = await serveHttp({ ...options.http, metrics: this.#metrics, problems })
    this.#stack.defer(() => {
      server.close()
      // Who is connected and silent would keep the process.
      server.closeAllConnections()
    })
    log.info('http server listens', { address: addressOf(server) })
  }

  /** A ztunnel drains what its snapshot lacks: before one can connect, know the pods. */
  async knowPods(): Promise<void> {
    await this.#cluster.start()
    // Also where there is nothing to tell of.
    this.#enrollment.changed()
    await this.#pods.syncAll()
  }

  /** For ztunnel, then for the plugin. */
  listen(): void {
    const { options, moduleLog } = this.#parts
    const poller = this.#stack.use(new Poller())
    mkdirSync(dirname(options.zds), { recursive: true, mode: 0o755 })
    this.#zds = ZdsServer.listen({
      path: options.zds,
      poller,
      log: moduleLog('zds'),
      snapshot: () => this.#workloads.snapshot(this.#pods.unresolved()),
      admit: ({ pid }) => this.#proxies.admit(pid),
      onServed: (uid) => {
        if (this.#workloads.accept(uid)) void this.#pods.sync(uid)
      },
      onConnections: (count) => this.#metrics.ztunnels.set(count),
    })
    this.#stack.use(this.#zds)
    this.#workloads.connect(this.#zds)
    const requests = new PluginRequests(this.#node)
    this.#stack.use(
      AgentServer.listen({
        path: options.socket,
        poller,
        log: moduleLog('plugin'),
        decide: (request) => requests.decide(request),
        activate: (request, netns) => requests.activate(request, netns),
      }),
    )
  }

  /** Puts the plugin on the host last: from then on, the container runtime calls it, and it asks here. */
  async keepNode(): Promise<void> {
    const { options, source, moduleLog } = this.#parts
    const { install, entry, load: loadOptions, reconcileSeconds } = options
    if (install !== undefined) {
      const log = moduleLog('host')
      this.#host = this.#stack.use(new Host({ source, install, entry, log, metrics: this.#metrics }))
    }
    this.#reconciler = new Reconciler({
      node: { ...this.#node, log: moduleLog('reconcile') },
      pods: this.#pods,
      host: this.#host,
      load: loadOptions,
      periodMs: reconcileSeconds * 1000,
      proxies: this.#proxies,
    })
    this.#stack.use(this.#reconciler)
    await this.#reconciler.run()
  }

  /** Why the agent is not ready. */
  #problems(): string[] {
    if (!this.#cluster.synced) return ['the API server has not told of the pods of this node yet']
    if (this.#reconciler === undefined) return ['the agent is starting']
    return [
      this.#host?.problem,
      this.#reconciler.problem,
      this.#zds?.connections === 0 ? 'no ztunnel is connected' : undefined,
    ].filter((problem) => problem !== undefined)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync()
  }
}
