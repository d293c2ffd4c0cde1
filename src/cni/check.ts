// SPDX-License-Identifier: Apache-2.0
import { inspect } from '../pods/inspect.ts'
import { decisionFor, podName } from './decision.ts'
import { CniCode, CniError } from './errors.ts'
import { failure } from './failure.ts'
import type { CheckRequest } from './types.ts'

/** CHECK: is everything that ADD did still there and alive? */
export function check(request: CheckRequest): void {
  if (!decisionFor(request).enroll) return
  const { containerId, ifname, netns, config } = request
  const addresses = (request.prevResult.ips ?? []).flatMap(
    ({ address }) => address?.replace(/\/.*$/, '') ?? [],
  )
  const faults = inspectPod()
  if (faults.length === 0) return
  throw new CniError(CniCode.captureFailed, `${podName(request)} is not captured as it should be`, {
    details: `${faults.join('; ')}; delete the pod, so that it is enrolled anew`,
  })

  function inspectPod(): string[] {
    try {
      return inspect({ containerId, ifname }, netns, addresses, config.bpffs)
    } catch (cause) {
      throw failure(`cannot check ${podName(request)}`, cause)
    }
  }
}
