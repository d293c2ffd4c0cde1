// SPDX-License-Identifier: Apache-2.0
/** What only the agent can tell and do. Loaded when it is needed: static enrollment does not pay for it. */
import { AgentAway, activate, decide } from '../agent-api/client.ts'
import { readEnrollment, recall } from '../agent-api/enrollment-file.ts'
import type { DecideRequest } from '../agent-api/protocol.ts'
import { type EnrollRequest, enroll } from '../pods/enroll.ts'
import { openNetns } from '../pods/open-netns.ts'
import { withdraw } from '../pods/withdraw.ts'
import type { Decision } from '../policy/pod.ts'
import { RemedyError } from '../remedy.ts'
import { CniCode, CniError } from './errors.ts'
import { failure } from './failure.ts'
import { podName, podOf } from './request.ts'
import type { AddRequest, CheckRequest } from './types.ts'

/** Without the agent nobody knows how a pod is captured, but perhaps that it is not. */
export function decidedByAgent(request: AddRequest): Decision {
  const answer = answerFor(request)
  if (!('away' in answer)) return answer
  const { away, enroll, reason } = answer
  const { enrollmentFile } = request.config
  if (!enroll) return { enroll, reason, warnings: [`${away.message}; ${enrollmentFile} decided`] }
  throw new CniError(CniCode.tryAgain, `cannot enroll ${podName(request)}`, {
    details: `${away.message}; ${enrollmentFile}: the pod is enrolled, ${reason}; ${away.remedy}`,
    cause: away,
  })
}

export function isEnrolledByAgent(request: CheckRequest): boolean {
  return answerFor(request).enroll
}

interface Recalled {
  readonly enroll: boolean
  readonly reason: string
  readonly away: AgentAway
}

/** Code 11 when nobody can tell. */
function answerFor(request: AddRequest | CheckRequest): Decision | Recalled {
  try {
    return decide(request.config.agentSocket, questionOf(request))
  } catch (err) {
    if (!(err instanceof AgentAway)) throw failure(`cannot tell whether ${podName(request)} is enrolled`, err)
    return recalled(request, err)
  }
}

function recalled(request: AddRequest | CheckRequest, away: AgentAway): Recalled {
  const { enrollmentFile: file, runtimeConfig } = request.config
  const annotations = runtimeConfig?.['io.kubernetes.cri.pod-annotations']
  const pod = { ...questionOf(request).pod, ...(annotations ? { annotations } : {}) }
  try {
    const { enroll, reason } = recall(readEnrollment(file), pod)
    if (enroll !== undefined) return { enroll, reason, away }
    throw cannotTell(`${file} does not tell: ${reason}`)
  } catch (err) {
    throw err instanceof RemedyError ? cannotTell(err.message) : err
  }

  function cannotTell(why: string): CniError {
    return new CniError(CniCode.tryAgain, `cannot tell whether ${podName(request)} is enrolled`, {
      details: `${away.message}; ${why}; ${away.remedy}`,
      cause: away,
    })
  }
}

/** All or nothing, as `enroll`: what ztunnel does not serve is taken back. */
export function enrollAndActivate(wanted: EnrollRequest, request: AddRequest): void {
  const { agentSocket, bpffs } = request.config
  // One and the same for both, whatever becomes of the path.
  using netns = openNetns(request.netns)
  enroll({ ...wanted, netns }, bpffs)
  try {
    activate(agentSocket, questionOf(request), netns.fd)
  } catch (err) {
    takeBack(request)
    throw err
  }
}

/** Why the pod was not activated must not be hidden by what then could not be taken back: its DEL tries that again. */
function takeBack({ containerId, ifname, netns, config }: AddRequest): void {
  try {
    withdraw({ containerId, ifname }, config.bpffs, netns)
  } catch {
    // The first failure is told.
  }
}

/** The namespace is not guessed: another pod of that name may be there. */
function questionOf(request: AddRequest | CheckRequest): DecideRequest {
  const { containerId, ifname } = request
  const { namespace, name = '', uid = '' } = podOf(request)
  if (namespace !== undefined) return { containerId, ifname, pod: { namespace, name, uid } }
  throw new CniError(CniCode.invalidEnvironment, 'CNI_ARGS has no K8S_POD_NAMESPACE', {
    details: 'the container runtime sets it beside K8S_POD_NAME',
  })
}
