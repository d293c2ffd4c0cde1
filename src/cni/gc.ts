// SPDX-License-Identifier: Apache-2.0
import { withdrawOthers } from '../pods/withdraw.ts'
import { CniCode, CniError, describe } from './errors.ts'
import { failure } from './failure.ts'
import type { GcRequest } from './types.ts'

/** GC: take back every attachment that the runtime does not list. Without a list, nothing. */
export function gc({ validAttachments, config }: GcRequest): void {
  if (validAttachments === undefined) return
  const valid = validAttachments.map(({ containerID, ifname }) => ({ containerId: containerID, ifname }))
  const failures = withdrawStale()
  if (failures.length === 0) return
  throw new CniError(CniCode.captureFailed, `cannot withdraw ${failures.length} stale attachments`, {
    details: failures.map(describe).join('; '),
  })

  function withdrawStale(): unknown[] {
    try {
      return withdrawOthers(valid, config.bpffs)
    } catch (cause) {
      throw failure('cannot look for stale attachments', cause)
    }
  }
}
