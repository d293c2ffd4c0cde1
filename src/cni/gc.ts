// SPDX-License-Identifier: Apache-2.0
import { withdrawOthers } from '../pods/withdraw.ts'
import { CniCode, CniError, describe } from './errors.ts'
import type { GcRequest } from './types.ts'

/** GC: take back every attachment that the runtime does not list. Without a list, nothing. */
export function gc({ validAttachments, config }: GcRequest): void {
  if (validAttachments === undefined) return
  const valid = validAttachments.map(({ containerID, ifname }) => ({ containerId: containerID, ifname }))
  const failures = withdrawOthers(valid, config.bpffs)
  if (failures.length === 0) return
  throw new CniError(CniCode.captureFailed, `cannot withdraw ${failures.length} stale attachments`, {
    details: failures.map(describe).join('; '),
  })
}
