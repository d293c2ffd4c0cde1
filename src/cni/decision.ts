// SPDX-License-Identifier: Apache-2.0
import { decide, excludedBy } from '../policy/decide.ts'
import type { Decision } from '../policy/pod.ts'
import { CniCode, CniError } from './errors.ts'
import { podOf } from './request.ts'
import type { AddRequest, CheckRequest } from './types.ts'

/** Whether the pod is enrolled. Throws PolicyError for one that cannot be captured as it asks, and code 11 when nobody can tell. */
export function decisionFor(request: AddRequest | CheckRequest): Decision {
  const { config } = request
  const pod = podOf(request)
  if (config.enrollment.source === 'static') return decide(pod, config)
  const reason =
    pod.name === undefined ? 'not a pod of Kubernetes: CNI_ARGS has no K8S_POD_NAME' : excludedBy(pod, config)
  if (reason !== undefined) return { enroll: false, reason, warnings: [] }
  throw new CniError(CniCode.tryAgain, `cannot tell whether ${podName(request)} is enrolled`, {
    details: `no agent answers on ${config.agentSocket}: start the ambridge agent on this node, or set enrollment.source to "static"`,
  })
}

/** For messages: namespace/name, or the container where the runtime names no pod. */
export function podName(request: AddRequest | CheckRequest): string {
  const { namespace, name } = podOf(request)
  return name === undefined ? `container ${request.containerId}` : `pod ${namespace ?? 'default'}/${name}`
}
