// SPDX-License-Identifier: Apache-2.0
/** What the plugin asks for while a container runtime waits: is the pod enrolled, and then: hand it to ztunnel. */
import type { ActivateRequest, DecideRequest } from '../../src/agent-api/protocol.ts'
import type { AttachmentKey } from '../../src/bpf/pods.ts'
import { Store } from '../../src/bpf/store.ts'
import type { NamespaceView, PodView } from '../../src/k8s/view.ts'
import { pinPaths } from '../../src/linux/bpffs.ts'
import type { Netns } from '../../src/linux/netns.ts'
import type { Decision } from '../../src/policy/pod.ts'
import { RemedyError } from '../../src/remedy.ts'
import { decidePod } from './decisions.ts'
import { type AgentNode, infoOf, nameOf, uidsOf } from './node.ts'

/** An ADD that was decided is activated within this time, or never. */
const addMs = 120_000

type Asked = DecideRequest['pod']

export class PluginRequests {
  readonly #node: AgentNode
  /** By container: the pod as it was read, so that `activate` needs no read of its own. */
  readonly #adding = new Map<string, { pod: PodView; until: number }>()

  constructor(node: AgentNode) {
    this.#node = node
  }

  /** Throws PolicyError for a pod that cannot be captured as it asks, RemedyError when nobody can tell. */
  async decide({ containerId, pod: asked }: DecideRequest): Promise<Decision> {
    const { log, metrics } = this.#node
    const pod = this.#cached(asked) ?? (await this.#read(asked))
    const decision = decidePod(pod, await this.#namespace(pod), this.#node.rules)
    metrics.decisions.inc({ result: decision.enroll ? 'enroll' : 'leave' })
    log.info('decided', { pod: nameOf(asked), containerId, enroll: decision.enroll, reason: decision.reason })
    this.#forgetOld()
    if (decision.enroll) this.#adding.set(containerId, { pod, until: Date.now() + addMs })
    return decision
  }

  /** Resolves when ztunnel serves the pod; PodSync annotates it then. On failure nothing is left of it here: the plugin takes back the rest. */
  async activate({ containerId, ifname, pod: asked }: ActivateRequest, netns: Netns): Promise<void> {
    const { serial, log, metrics } = this.#node
    using held = netns
    const pod = this.#cached(asked) ?? this.#adding.get(containerId)?.pod ?? (await this.#read(asked))
    this.#adding.delete(containerId)
    const began = Date.now()
    try {
      await serial.run(pod.uid, () => this.#activate(pod, { containerId, ifname }, held))
    } catch (error) {
      metrics.activations.inc({ result: 'failed' })
      log.warn('pod not activated', { pod: nameOf(asked), containerId, error })
      throw error
    }
    metrics.activations.inc({ result: 'served' })
    log.info('pod activated', { pod: nameOf(asked), containerId, ms: Date.now() - began })
  }

  async #activate(pod: PodView, key: AttachmentKey, netns: Netns): Promise<void> {
    const { workloads, rules } = this.#node
    const decision = decidePod(pod, await this.#namespace(pod), rules)
    if (!decision.enroll) {
      throw new RemedyError(
        `the pod is not enrolled any more: ${decision.reason}`,
        'the container runtime tries again',
      )
    }
    this.#requireRegistered(key, netns)
    if (decision.policy.mode === 'sidecar') return
    try {
      await workloads.serve(pod.uid, infoOf(pod), netns.duplicate(), key)
    } catch (err) {
      await workloads.drop(pod.uid).catch(() => undefined)
      throw err
    }
  }

  /** ztunnel must not be given a netns whose traffic is not captured. */
  #requireRegistered(key: AttachmentKey, netns: Netns): void {
    const { bpffs } = this.#node
    using store = new Store(pinPaths(bpffs).maps)
    if (store.attachments.get(key)?.netns === netns.cookie()) return
    const remedy =
      'plugin and agent must use the same bpffs folder: compare "bpffs" in the conflist with --bpffs'
    throw new RemedyError(`container ${key.containerId} is not registered in ${bpffs}`, remedy)
  }

  #cached(asked: Asked): PodView | undefined {
    const pod = this.#node.cluster.pod(asked.namespace, asked.name)
    return pod !== undefined && isSame(pod, asked) ? pod : undefined
  }

  /** Also where the cache has an older pod of the same name. */
  async #read(asked: Asked): Promise<PodView> {
    const pod = await this.#node.cluster.readPod(asked.namespace, asked.name)
    if (pod === undefined) {
      throw new RemedyError(
        `the API server knows no pod ${nameOf(asked)}`,
        'it was deleted: its sandbox will be, too',
      )
    }
    if (isSame(pod, asked)) return pod
    const message = `pod ${nameOf(asked)} has uid ${pod.uid}, the container runtime starts ${asked.uid}`
    throw new RemedyError(message, 'a newer pod has the name: the sandbox of the older one will be deleted')
  }

  async #namespace(pod: PodView): Promise<NamespaceView> {
    const { cluster } = this.#node
    const namespace = cluster.namespace(pod.namespace) ?? (await cluster.readNamespace(pod.namespace))
    if (namespace !== undefined) return namespace
    throw new RemedyError(
      `the API server knows no namespace ${pod.namespace}`,
      'it was deleted, and its pods will be',
    )
  }

  #forgetOld(): void {
    for (const [containerId, { until }] of this.#adding) {
      if (until < Date.now()) this.#adding.delete(containerId)
    }
  }
}

/** Some runtimes name no uid. */
function isSame(pod: PodView, { uid }: Asked): boolean {
  return uid === '' || uidsOf(pod).includes(uid)
}
