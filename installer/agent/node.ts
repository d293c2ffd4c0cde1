// SPDX-License-Identifier: Apache-2.0
/** What one agent knows and uses: handed to each of its parts. */
import type { AttachmentKey } from '../../src/bpf/pods.ts'
import { Store } from '../../src/bpf/store.ts'
import type { Cluster } from '../../src/k8s/cluster.ts'
import type { NamespaceView, PodView } from '../../src/k8s/view.ts'
import { pinPaths } from '../../src/linux/bpffs.ts'
import type { Logger } from '../../src/log.ts'
import type { Decision } from '../../src/policy/pod.ts'
import type { WorkloadInfo } from '../../src/zds/server.ts'
import { decidePod, type EnrollmentRules } from './decisions.ts'
import type { Metrics } from './metrics.ts'
import type { Serial } from './serial.ts'
import type { Workloads } from './workloads.ts'

export interface AgentNode {
  readonly cluster: Cluster
  readonly workloads: Workloads
  /** One piece of work at a time for each pod, by its uid. */
  readonly serial: Serial
  readonly rules: EnrollmentRules
  readonly bpffs: string
  readonly log: Logger
  readonly metrics: Metrics
}

/** The uid of the API server first; a static pod is known to the runtime by another. */
export function uidsOf({ uid, configHash }: PodView): string[] {
  return configHash === undefined ? [uid] : [uid, configHash]
}

export function infoOf({ name, namespace, serviceAccount }: PodView): WorkloadInfo {
  return { name, namespace, serviceAccount }
}

/** Before the namespace is known, nothing can be said about its pods. */
export function namespaceOf({ cluster }: AgentNode, pod: PodView): NamespaceView | undefined {
  return cluster.namespace(pod.namespace)
}

/** Undefined: nobody can tell yet. Throws PolicyError for a pod that cannot be captured as it asks. */
export function decisionOn(pod: PodView, node: AgentNode): Decision | undefined {
  const isOver = pod.phase === 'Succeeded' || pod.phase === 'Failed'
  if (isOver) return { enroll: false, reason: `phase ${pod.phase}`, warnings: [] }
  const namespace = namespaceOf(node, pod)
  return namespace && decidePod(pod, namespace, node.rules)
}

/** For the log. */
export function nameOf({ namespace, name }: { readonly namespace: string; readonly name: string }): string {
  return `${namespace}/${name}`
}

export interface Registered {
  readonly key: AttachmentKey
  readonly podUid: string
  /** Cookie. */
  readonly netns: bigint
  readonly netnsDev: bigint
  readonly netnsIno: bigint
}

/** What the maps hold of pods. */
export function registrations(bpffs: string): Registered[] {
  using store = new Store(pinPaths(bpffs).maps)
  return store.attachments.entries().map(([key, { podUid, netns, netnsDev, netnsIno }]) => {
    return { key, podUid, netns, netnsDev, netnsIno }
  })
}

/** Those of one pod. */
export function ofPod(pod: PodView, all: readonly Registered[]): Registered[] {
  const uids = uidsOf(pod)
  return all.filter(({ podUid }) => uids.includes(podUid))
}
