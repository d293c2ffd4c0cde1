// SPDX-License-Identifier: Apache-2.0
/** Which pods of the cluster are enrolled, by Istio's rules. Pure. */
import type { NamespaceView, PodView } from '../../src/k8s/view.ts'
import { decideChosen, sidecarStatus } from '../../src/policy/decide.ts'
import type { Decision, PolicyConfig } from '../../src/policy/pod.ts'
import { type EnablementSelector, isSelected } from '../../src/policy/select.ts'

export interface EnrollmentRules {
  /** How the entry in the conflist says that pods are captured, and excludeNamespaces. */
  readonly policy: PolicyConfig
  readonly selectors: readonly EnablementSelector[]
  /** Whose pods are ztunnel: its service account, because anyone can set a label. */
  readonly ztunnel: { readonly namespace: string; readonly serviceAccount: string }
  /** Pods with a sidecar are captured for it. */
  readonly sidecar: boolean
}

/** Throws PolicyError for a pod that is to be enrolled and cannot be captured as it asks. */
export function decidePod(pod: PodView, namespace: NamespaceView, rules: EnrollmentRules): Decision {
  const { name, uid, annotations } = pod
  const known = { namespace: pod.namespace, name, uid, annotations }
  if (pod.hostNetwork) return no('spec.hostNetwork')
  if (isZtunnel(pod, rules)) return no('the pod is ztunnel')
  if (rules.sidecar && sidecarStatus in annotations) {
    return decideChosen(known, sidecarPolicy(pod, rules.policy), `annotation ${sidecarStatus}`)
  }
  if (!isSelected(rules.selectors, pod.labels, namespace.labels)) return no('no selector matches its labels')
  return decideChosen(known, rules.policy, 'a selector matches its labels')
}

export function isZtunnel(pod: PodView, { ztunnel }: EnrollmentRules): boolean {
  return pod.namespace === ztunnel.namespace && pod.serviceAccount === ztunnel.serviceAccount
}

/** The sidecar's user is the one of its container, where the pod says so. */
function sidecarPolicy({ proxyUser, proxyGroup }: PodView, policy: PolicyConfig): PolicyConfig {
  const { proxyUid, proxyGid } = policy.sidecar
  const sidecar = { proxyUid: proxyUser ?? proxyUid, proxyGid: proxyGroup ?? proxyGid }
  return { ...policy, mode: 'sidecar', sidecar }
}

function no(reason: string): Decision {
  return { enroll: false, reason, warnings: [] }
}
