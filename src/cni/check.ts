// SPDX-License-Identifier: Apache-2.0
import { inspect } from '../pods/inspect.ts'
import { isEnrolled } from './decision.ts'
import { CniCode, CniError } from './errors.ts'
import { failure } from './failure.ts'
import { podName } from './request.ts'
import type { CheckRequest } from './types.ts'

/** CHECK: is everything that ADD did still there and alive? */
export async function check(request: CheckRequest): Promise<void> {
  if (!(await isEnrolled(request))) return
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
