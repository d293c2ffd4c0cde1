// SPDX-License-Identifier: Apache-2.0
import { Netns } from '../linux/netns.ts'
import { SystemError } from '../native.ts'
import { RemedyError } from '../remedy.ts'

/** Throws RemedyError where there is no network namespace. */
export function openNetns(path: string): Netns {
  try {
    return Netns.open(path)
  } catch (cause) {
    if (!(cause instanceof SystemError) || !['ENOENT', 'ENOTDIR', 'EINVAL'].includes(cause.code)) throw cause
    const remedy = 'pass the path of a network namespace in CNI_NETNS, such as /var/run/netns/<name>'
    throw new RemedyError(cause.message, remedy, { kind: 'environment', cause })
  }
}
