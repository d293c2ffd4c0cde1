// SPDX-License-Identifier: Apache-2.0
import type { Logger } from '../log.ts'
import { enroll } from '../pods/enroll.ts'
import type { PodPolicy } from '../policy/pod.ts'
import { decisionFor } from './decision.ts'
import { failure } from './failure.ts'
import { podName, podOf } from './request.ts'
import type { AddRequest } from './types.ts'

/** ADD: enroll the pod if the configuration asks for it. */
export async function add(request: AddRequest, log: Logger): Promise<void> {
  const decision = await decisionFor(request)
  const { containerId, netns } = request
  for (const message of [...request.warnings, ...decision.warnings]) log.warn(message, { containerId })
  if (decision.enroll) await enrollPod(request, decision.policy)
  log.info(decision.enroll ? 'enrolled' : 'not enrolled', { containerId, netns, reason: decision.reason })
}

async function enrollPod(request: AddRequest, policy: PodPolicy): Promise<void> {
  const { config, containerId, ifname, netns, netnsOverride } = request
  const { uid = '', namespace = '', name = '' } = podOf(request)
  const cgroupPath = config.runtimeConfig?.cgroupPath
  const wanted = {
    key: { containerId, ifname },
    netns,
    allowOwnNetns: netnsOverride,
    addresses: addressesOf(request),
    pod: { uid, namespace, name },
    ...(cgroupPath === undefined ? {} : { cgroupPath }),
    policy,
  }
  try {
    if (config.enrollment.source === 'static') enroll(wanted, config.bpffs)
    else (await import('./agent.ts')).enrollAndActivate(wanted, request)
  } catch (cause) {
    throw failure(`cannot enroll ${podName(request)}`, cause)
  }
}

/** What prevResult says of the pod's own addresses. By hand there may be none. */
function addressesOf({ config: { prevResult } }: AddRequest): string[] {
  const { ips, interfaces } = prevResult ?? {}
  if (!Array.isArray(ips)) return []
  const isInPod = (index: unknown) => typeof index !== 'number' || interfaces?.[index]?.sandbox !== ''
  return ips.flatMap(({ address, interface: index }) => {
    return typeof address === 'string' && isInPod(index) ? [address.replace(/\/.*$/, '')] : []
  })
}
