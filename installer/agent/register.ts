// SPDX-License-Identifier: Apache-2.0
import type { AttachmentKey } from '../../src/bpf/pods.ts'
import type { PodView } from '../../src/k8s/view.ts'
import type { Netns } from '../../src/linux/netns.ts'
import { enroll } from '../../src/pods/enroll.ts'
import { inspect } from '../../src/pods/inspect.ts'
import type { PodPolicy } from '../../src/policy/pod.ts'
import { type AgentNode, nameOf } from './node.ts'

export interface Running {
  readonly key: AttachmentKey
  /** Stays the caller's. */
  readonly netns: Netns
  /** As in /proc/PID/cgroup. */
  readonly cgroup: string
  /** Registered for this netns, as it should be or not. */
  readonly isKnown: boolean
  /** What is put right here is a repair. */
  readonly wasEnrolled: boolean
}

/** Makes a running pod be captured, unless it is. */
export function registerRunning(pod: PodView, policy: PodPolicy, running: Running, node: AgentNode): void {
  const { bpffs, log, metrics } = node
  const { key, netns, cgroup, isKnown, wasEnrolled } = running
  const faults = isKnown ? inspect(key, netns, [], bpffs) : ['not registered']
  if (faults.length === 0) return
  enroll(
    {
      key,
      netns,
      allowOwnNetns: false,
      addresses: pod.ips,
      pod: { ...pod, uid: pod.configHash ?? pod.uid },
      cgroupPath: cgroup,
      policy,
    },
    bpffs,
  )
  const { containerId } = key
  if (wasEnrolled) metrics.repairs.inc({ kind: 'registration' })
  log[wasEnrolled ? 'warn' : 'info']('running pod enrolled', { pod: nameOf(pod), containerId, faults })
}
