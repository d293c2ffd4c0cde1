// SPDX-License-Identifier: Apache-2.0
/** A node whose agent and plugins are killed while pods come and go. */
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { AgentMesh, dataplane, redirection } from './agent-mesh.ts'
import { type CniCommand, type CniOutcome, killCni, tryCni } from './ambridge.ts'
import { waitFor } from './exec.ts'
import { tracesOf } from './node-state.ts'
import type { Random } from './random.ts'
import { type Attempt, isUncaptured } from './redialer.ts'
import { type PodIdentity, type Sandbox, Sandboxes } from './sandbox.ts'
import type { ZtunnelStandin } from './standin.ts'

/** As Date.now(). */
interface Interval {
  readonly from: number
  to: number
}

export interface CrashPod extends PodIdentity {
  readonly family: 'ipv4' | 'ipv6'
  sandbox?: Sandbox
  /** When nothing of it may have been uncaptured. */
  readonly captured: Interval[]
}

export interface Figures {
  agentKills: number
  pluginKills: number
  pods: number
  /** Sandboxes that went without a DEL. */
  forgotten: number
  attempts: number
  /** Of those, made while the pod was enrolled for sure, and answered. */
  judged: number
  uncaptured: number
  /** After a DEL. */
  leaks: number
}

const patient = { timeoutMs: 120_000, everyMs: 10 }

export class CrashField implements AsyncDisposable {
  readonly figures: Figures = {
    agentKills: 0,
    pluginKills: 0,
    pods: 0,
    forgotten: 0,
    attempts: 0,
    judged: 0,
    uncaptured: 0,
    leaks: 0,
  }
  /** What must not have been. */
  readonly violations: string[] = []
  readonly pods = new Set<CrashPod>()
  readonly containerIds = new Set<string>()
  readonly mesh: AgentMesh
  readonly ztunnel: ZtunnelStandin
  readonly #sandboxes: Sandboxes
  readonly #stack: AsyncDisposableStack
  readonly #kills: number
  /** Since when the agent has known all that was before. */
  #freshSince = 0
  #startedAt = 0

  private constructor(
    kills: number,
    mesh: AgentMesh,
    ztunnel: ZtunnelStandin,
    sandboxes: Sandboxes,
    stack: AsyncDisposableStack,
  ) {
    this.#kills = kills
    this.mesh = mesh
    this.ztunnel = ztunnel
    this.#sandboxes = sandboxes
    this.#stack = stack
  }

  static async create(kills: number): Promise<CrashField> {
    await using stack = new AsyncDisposableStack()
    const mesh = stack.use(await AgentMesh.create({ hosts: 0 }))
    const sandboxes = stack.use(await Sandboxes.create(mesh))
    await mesh.mesh.serve(sandboxes.server, 'far', [8080])
    const ztunnel = await mesh.ztunnel()
    return new CrashField(kills, mesh, ztunnel, sandboxes, stack.move())
  }

  get isOver(): boolean {
    const { agentKills, pluginKills } = this.figures
    return agentKills + pluginKills >= this.#kills
  }

  /** Until enough was killed; then the agent runs. */
  async killAgents(random: Random): Promise<void> {
    while (!this.isOver) {
      // In its start, or when it is at work.
      if (random.chance(0.5)) {
        await this.#agentRuns()
        await this.#agentSays('snapshot sent')
      }
      await sleep(random.between(0, 600))
      await this.#killAgent()
    }
    await this.#agentRuns()
  }

  /** Once more: what nobody deleted is found when an agent starts. */
  async restartAgent(): Promise<void> {
    await this.#killAgent()
    await this.#agentRuns()
  }

  async #killAgent(): Promise<void> {
    const { agent } = this.mesh
    await agent.kill()
    this.figures.agentKills++
    this.#startedAt = Date.now()
    agent.launch()
  }

  async #agentRuns(): Promise<void> {
    await this.#agentSays('agent is running')
    this.#freshSince = this.#startedAt
  }

  async #agentSays(message: string): Promise<void> {
    const { agent } = this.mesh
    await waitFor(message, () => agent.log().some((line) => line.message === message), patient)
  }

  /** An agent that was started after this call is there: nothing older is under way. */
  async freshAgent(): Promise<void> {
    const now = Date.now()
    await waitFor('another agent', () => this.isOver || this.#freshSince > now, patient)
  }

  newPod(namespace: string, family: CrashPod['family']): CrashPod {
    const pod = { uid: randomUUID(), name: `pod${++this.figures.pods}`, namespace, family, captured: [] }
    this.mesh.api.pods.create({ ...pod, phase: 'Pending', ips: [] })
    this.pods.add(pod)
    return pod
  }

  /** As a container runtime: what fails or is killed is deleted, and tried again in another sandbox. */
  async run(pod: CrashPod, random: Random): Promise<void> {
    for (;;) {
      const sandbox = await this.#sandboxes.make(pod, pod.family)
      this.containerIds.add(sandbox.containerId)
      if (random.chance(0.5)) await sandbox.startClient()
      const added = await this.#plugin('ADD', sandbox, random)
      if (added?.code === 0) return this.#started(pod, sandbox)
      if (added !== undefined && (added.output as { code?: unknown }).code !== 11)
        this.#violation('ADD', added)
      await this.#remove(pod, sandbox, random)
      await sleep(random.between(50, 200))
    }
  }

  async #started(pod: CrashPod, sandbox: Sandbox): Promise<void> {
    if (pod.namespace === 'mesh') this.mustBeCaptured(pod)
    pod.sandbox = sandbox
    await sandbox.startClient()
    const podIPs = [sandbox.host.ipv4, sandbox.host.ipv6].map((ip) => ({ ip }))
    this.mesh.api.pods.update(pod, { status: { phase: 'Running', podIPs } })
  }

  /** As kubelet and container runtime: containers end, then the sandbox goes. */
  async end(pod: CrashPod, random: Random): Promise<void> {
    this.mayBeUncaptured(pod)
    const isForced = random.chance(0.3)
    if (isForced) this.mesh.api.pods.delete(pod)
    if (pod.sandbox !== undefined) await this.#remove(pod, pod.sandbox, random)
    if (!isForced) this.mesh.api.pods.delete(pod)
    this.pods.delete(pod)
  }

  async #remove(pod: CrashPod, sandbox: Sandbox, random: Random): Promise<void> {
    this.judge(pod, await sandbox.endClient())
    const isForgotten = !this.isOver && random.chance(0.1)
    if (isForgotten) this.figures.forgotten++
    else await this.#delete(sandbox, random)
    await sandbox.remove()
    const traces = isForgotten ? [] : tracesOf(sandbox, this.mesh.mesh.bpffs)
    this.figures.leaks += traces.length
    if (traces.length > 0) this.#violation(`${pod.name} was deleted`, traces)
  }

  async #delete(sandbox: Sandbox, random: Random): Promise<void> {
    for (;;) {
      const deleted = await this.#plugin('DEL', sandbox, random)
      if (deleted?.code === 0) return
      if (deleted !== undefined) this.#violation('DEL', deleted)
      await sleep(20)
    }
  }

  async #plugin(command: CniCommand, { call }: Sandbox, random: Random): Promise<CniOutcome | undefined> {
    if (this.isOver || random.chance(0.6)) return tryCni(command, call)
    const outcome = await killCni(command, call, random.between(0, 150))
    if (outcome === undefined) this.figures.pluginKills++
    return outcome
  }

  mustBeCaptured(pod: CrashPod): void {
    pod.captured.push({ from: Date.now(), to: Number.POSITIVE_INFINITY })
  }

  mayBeUncaptured(pod: CrashPod): void {
    const last = pod.captured.at(-1)
    if (last !== undefined) last.to = Math.min(last.to, Date.now())
  }

  /** Whether its label, or that of its namespace, is there. */
  label(kind: 'pods' | 'namespaces', name: { name: string; namespace?: string }, on: boolean): void {
    this.mesh.api[kind].update(name, { metadata: { labels: { [dataplane]: on ? 'ambient' : null } } })
  }

  async annotated(pods: readonly CrashPod[], value: 'enabled' | undefined): Promise<void> {
    const annotationOf = (pod: CrashPod) => this.mesh.api.pods.read(pod).metadata.annotations[redirection]
    await waitFor(`annotation ${value}`, () => pods.every((pod) => annotationOf(pod) === value), patient)
  }

  judge(pod: CrashPod, attempts: readonly Attempt[]): void {
    this.figures.attempts += attempts.length
    const judged = attempts.filter(({ ok, from, to }) => {
      return ok && pod.captured.some((interval) => interval.from <= from && to <= interval.to)
    })
    const uncaptured = judged.filter(isUncaptured)
    this.figures.judged += judged.length
    this.figures.uncaptured += uncaptured.length
    for (const attempt of uncaptured.slice(0, 3)) this.#violation(`${pod.name} was uncaptured`, attempt)
  }

  #violation(what: string, detail: unknown): void {
    this.violations.push(`${new Date().toISOString()} ${what}: ${JSON.stringify(detail)}`)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync()
  }
}
