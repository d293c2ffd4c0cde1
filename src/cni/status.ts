// SPDX-License-Identifier: Apache-2.0
import { requireLoaded } from '../pods/loaded.ts'
import { RemedyError } from '../remedy.ts'
import { CniCode, CniError } from './errors.ts'
import { failure } from './failure.ts'
import type { StatusRequest } from './types.ts'

/** STATUS: can ADD be served? */
export function status({ config }: StatusRequest): void {
  try {
    requireLoaded(config.bpffs)
  } catch (cause) {
    if (!(cause instanceof RemedyError)) throw failure('cannot tell the status', cause)
    throw new CniError(CniCode.notAvailable, cause.message, { details: cause.remedy, cause })
  }
}
