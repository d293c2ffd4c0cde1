// SPDX-License-Identifier: Apache-2.0
import { Netns } from '../linux/netns.ts'
import { SystemError } from '../native.ts'
import { RemedyError } from '../remedy.ts'

/**
 * A path, or one that stays the caller's: of that, another descriptor, with a lock of its own. Throws RemedyError where
 * there is no network namespace.
 */
export function openNetns(netns: Netns | string): Netns {
  try {
    return typeof netns === 'string' ? Netns.open(netns) : netns.duplicate()
  } catch (cause) {
    if (!(cause instanceof SystemError) || !['ENOENT', 'ENOTDIR', 'EINVAL'].includes(cause.code)) throw cause
    const remedy = 'pass the path of a network namespace in CNI_NETNS, such as /var/run/netns/<name>'
    throw new RemedyError(cause.message, remedy, { kind: 'environment', cause })
  }
}
