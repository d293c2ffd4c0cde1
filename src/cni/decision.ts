// SPDX-License-Identifier: Apache-2.0
import { decide, excludedByNamespace } from '../policy/decide.ts'
import type { Decision } from '../policy/pod.ts'
import { podOf } from './request.ts'
import type { AddRequest, CheckRequest } from './types.ts'

/** Whether the pod is enrolled. Throws PolicyError for one that cannot be captured as it asks, and code 11 when nobody can tell. */
export async function decisionFor(request: AddRequest): Promise<Decision> {
  return decidedHere(request) ?? (await import('./agent.ts')).decidedByAgent(request)
}

/** For CHECK: how the pod is captured does not matter. Throws as `decisionFor` does. */
export async function isEnrolled(request: CheckRequest): Promise<boolean> {
  return decidedHere(request)?.enroll ?? (await import('./agent.ts')).isEnrolledByAgent(request)
}

/** Undefined: the agent has to be asked. */
function decidedHere(request: AddRequest | CheckRequest): Decision | undefined {
  const { config } = request
  const pod = podOf(request)
  if (config.enrollment.source === 'static') return decide(pod, config)
  const reason =
    pod.name === undefined
      ? 'not a pod of Kubernetes: CNI_ARGS has no K8S_POD_NAME'
      : excludedByNamespace(pod, config)
  return reason === undefined ? undefined : { enroll: false, reason, warnings: [] }
}
