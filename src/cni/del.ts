// SPDX-License-Identifier: Apache-2.0
import type { Logger } from '../log.ts'
import { withdraw } from '../pods/withdraw.ts'
import { failure } from './failure.ts'
import type { DelRequest } from './types.ts'

/** DEL: take back what ADD registered. Succeeds when nothing is left, whatever became of netns, programs and bpffs. */
export function del(request: DelRequest, log: Logger): void {
  for (const message of request.warnings) log.warn(message)
  const { containerId, ifname, netns, config } = request
  try {
    withdraw({ containerId, ifname }, config.bpffs, netns)
  } catch (cause) {
    throw failure(`cannot withdraw container ${containerId}`, cause)
  }
  log.info('withdrawn', { containerId, netns })
}
