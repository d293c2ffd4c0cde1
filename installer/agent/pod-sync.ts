// SPDX-License-Identifier: Apache-2.0
/** Makes a running pod be in the mesh, or out of it, as the API server has it now. */
import type { PodView } from '../../src/k8s/view.ts'
import { podProcesses } from '../../src/linux/procs.ts'
import { inspect } from '../../src/pods/inspect.ts'
import { withdraw } from '../../src/pods/withdraw.ts'
import { redirection } from '../../src/policy/decide.ts'
import type { PodPolicy } from '../../src/policy/pod.ts'
import { ZdsError } from '../../src/zds/error.ts'
import type { Workload } from '../../src/zds/server.ts'
import { locatePod } from './locate.ts'
import { type AgentNode, decisionOn, infoOf, nameOf, ofPod, registrations } from './node.ts'
import { ReadOnce } from './read-once.ts'
import { registerRunning } from './register.ts'
import { Retries } from './retries.ts'
import { Turns } from './turns.ts'

/** Pods that the plugin adds meanwhile come next at ztunnel, not after all of a namespace. */
const atOnce = 16

export class PodSync implements AsyncDisposable {
  readonly #node: AgentNode
  readonly #retries: Retries
  readonly #turns = new Turns(atOnce)
  readonly #processes = new ReadOnce(podProcesses)
  readonly #registrations = new ReadOnce(() => registrations(this.#node.bpffs))
  /** Uids of those that were registered. */
  readonly #sidecars = new Set<string>()
  #stopped = false

  constructor(node: AgentNode) {
    this.#node = node
    this.#retries = new Retries({ ...node, retry: (uid) => void this.sync(uid) })
  }

  /** Never rejects: what fails is logged once, and tried again. */
  sync(uid: string): Promise<void> {
    const asked = performance.now()
    return this.#turns.run(() => this.#node.serial.run(uid, () => this.#attempt(uid, asked)))
  }

  /** `asked`: what is read of this node is not older. */
  async #attempt(uid: string, asked: number): Promise<void> {
    if (this.#stopped) return
    try {
      await this.#sync(uid, asked)
      this.#retries.succeeded(uid)
    } catch (err) {
      this.#retries.failed(uid, err)
    }
  }

  /** Every pod that is here, or was. */
  async syncAll(): Promise<void> {
    const { cluster, workloads } = this.#node
    const uids = new Set([...cluster.pods().map(({ uid }) => uid), ...workloads.uids()])
    await Promise.all([...uids].map((uid) => this.sync(uid)))
  }

  /** Pods that were in the mesh and whose netns is not found: a ztunnel that serves them is to go on. */
  unresolved(): Workload[] {
    const { cluster, workloads } = this.#node
    const lost = cluster.pods().filter((pod) => {
      const wasServed = pod.annotations[redirection] === 'enabled'
      return wasServed && workloads.get(pod.uid) === undefined && this.#mayBeWanted(pod)
    })
    return lost.map((pod) => ({ uid: pod.uid, info: infoOf(pod), netns: undefined }))
  }

  #mayBeWanted(pod: PodView): boolean {
    try {
      return decisionOn(pod, this.#node)?.enroll ?? true
    } catch {
      return true
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped = true
    this.#retries[Symbol.dispose]()
    await this.#node.serial.idle()
  }

  async #sync(uid: string, asked: number): Promise<void> {
    const { cluster, workloads } = this.#node
    const seen = cluster.pods().find((each) => each.uid === uid)
    if (seen !== undefined) workloads.see(uid)
    const pod = seen ?? (await this.#unseen(uid))
    // The container runtime's DEL takes back the rest.
    if (pod === undefined) {
      this.#sidecars.delete(uid)
      return workloads.drop(uid)
    }
    const decision = decisionOn(pod, this.#node)
    if (decision === undefined) return
    if (!decision.enroll) return this.#withdraw(pod, decision.reason, asked)
    // What DEL took back stays taken back, also while processes of the pod are there.
    if (pod.deleting && ofPod(pod, registrations(this.#node.bpffs)).length === 0) return workloads.drop(uid)
    if (decision.policy.mode === 'sidecar') this.#keepSidecar(pod, decision.policy, asked)
    else await this.#enroll(pod, decision.policy, asked)
  }

  /** One that the plugin added before the watch told of it: the API server knows whether it is still there. */
  async #unseen(uid: string): Promise<PodView | undefined> {
    const { cluster, workloads } = this.#node
    const served = workloads.get(uid)
    if (served === undefined || served.seen) return undefined
    const pod = await cluster.readPod(served.info.namespace, served.info.name)
    return pod?.uid === uid ? pod : undefined
  }

  /** The annotation first: from then on, peers send no HBONE that nobody would take. */
  async #withdraw(pod: PodView, reason: string, asked: number): Promise<void> {
    const { workloads, bpffs, cluster, log } = this.#node
    const served = workloads.get(pod.uid)
    const registered = ofPod(pod, this.#registrations.since(asked)).map(({ key }) => key)
    const isAnnotated = redirection in pod.annotations && pod.annotations[redirection] !== 'disabled'
    if (served === undefined && registered.length === 0 && !isAnnotated) return
    if (isAnnotated) await cluster.setRedirection(pod, undefined)
    const keys = served === undefined ? registered : [served.key, ...registered]
    for (const key of keys) withdraw(key, bpffs, served?.netns)
    await workloads.drop(pod.uid)
    log.info('pod withdrawn', { pod: nameOf(pod), reason })
  }

  async #enroll(pod: PodView, policy: PodPolicy, asked: number): Promise<void> {
    const { workloads, bpffs } = this.#node
    const served = workloads.get(pod.uid)
    try {
      if (served === undefined || inspect(served.key, served.netns, [], bpffs).length > 0) {
        if (!(await this.#enrollRunning(pod, policy, asked))) return
      } else if (!served.accepted) {
        await this.#tell(() => workloads.tell(pod.uid))
      }
    } catch (err) {
      if (err instanceof ZdsError) await this.#annotate(pod)
      throw err
    }
    await this.#annotate(pod)
  }

  async #annotate(pod: PodView): Promise<void> {
    const { workloads, cluster } = this.#node
    const value = workloads.get(pod.uid)?.accepted ? 'enabled' : 'pending'
    // While ztunnel is started again, its pods stay what they are.
    if (![value, 'enabled'].includes(pod.annotations[redirection] ?? ''))
      await cluster.setRedirection(pod, value)
  }

  /** False when the pod does not run yet: the plugin enrolls it then. */
  async #enrollRunning(pod: PodView, policy: PodPolicy, asked: number): Promise<boolean> {
    const { workloads } = this.#node
    const running = this.#locate(pod, asked)
    if (running === undefined) {
      // A ztunnel that was asked to keep it still may.
      if (workloads.get(pod.uid) !== undefined) await workloads.drop(pod.uid)
      return false
    }
    using netns = running.netns
    const wasEnrolled = pod.annotations[redirection] === 'enabled'
    try {
      // The proxy first: then its listeners are there when the first connection is captured.
      await this.#tell(() => workloads.serve(pod.uid, infoOf(pod), netns.duplicate(), running.key))
    } finally {
      registerRunning(pod, policy, { ...running, wasEnrolled }, this.#node)
    }
    return true
  }

  /** A sidecar comes with its pod: a running one is not enrolled. But what ADD registered stays registered. */
  #keepSidecar(pod: PodView, policy: PodPolicy, asked: number): void {
    if (!this.#sidecars.has(pod.uid)) {
      if (ofPod(pod, this.#registrations.since(asked)).length > 0) this.#sidecars.add(pod.uid)
      return
    }
    const running = this.#locate(pod, asked)
    if (running === undefined) return
    using _ = running.netns
    registerRunning(pod, policy, { ...running, wasEnrolled: true }, this.#node)
  }

  /** The netns is the caller's. */
  #locate(pod: PodView, asked: number) {
    const registered = ofPod(pod, this.#registrations.since(asked))
    const found = locatePod(pod, registered, this.#processes.since(asked))
    if (found === undefined) return undefined
    const { netns, containerId, cgroup } = found
    const known = registered.find((each) => each.netns === netns.cookie())
    return { netns, cgroup, key: known?.key ?? { containerId, ifname: 'eth0' }, isKnown: known !== undefined }
  }

  /** A ztunnel that is not there gets the pod in its snapshot, and then `accept` leads here again. */
  async #tell(serve: () => Promise<void>): Promise<void> {
    try {
      await serve()
    } catch (err) {
      if (!(err instanceof ZdsError) || err.reason !== 'no-ztunnel') throw err
    }
  }
}
