// SPDX-License-Identifier: Apache-2.0
import { isLoaded, requireLoaded } from '../pods/loaded.ts'
import { RemedyError } from '../remedy.ts'
import { CniCode, CniError } from './errors.ts'
import { failure } from './failure.ts'
import type { StatusRequest } from './types.ts'

/**
 * STATUS: can ADD be served? Where an agent loads the programs and has not yet, the answer is yes: a node whose network is
 * reported as not ready starts no pod, not even the agent's. ADD refuses enrolled pods until then.
 */
export function status({ config: { bpffs, enrollment } }: StatusRequest): void {
  try {
    if (enrollment.source === 'static' || isLoaded(bpffs)) requireLoaded(bpffs)
  } catch (cause) {
    if (!(cause instanceof RemedyError)) throw failure('cannot tell the status', cause)
    const code = cause.kind === 'impaired' ? CniCode.limitedConnectivity : CniCode.notAvailable
    throw new CniError(code, cause.message, { details: cause.remedy, cause })
  }
}
