// SPDX-License-Identifier: Apache-2.0
import { RemedyError } from '../remedy.ts'

/**
 * `no-ztunnel`: none is connected. `refused`: ztunnel said no, or would have to. `timeout`: it did not answer. `closed`: the
 * connection ended first. After the last two nobody knows whether ztunnel has acted.
 */
export type ZdsReason = 'no-ztunnel' | 'refused' | 'timeout' | 'closed'

/** What was to be told to ztunnel, and was not, or not with success. */
export class ZdsError extends RemedyError {
  readonly reason: ZdsReason

  constructor(reason: ZdsReason, message: string, options: ErrorOptions & { readonly remedy?: string } = {}) {
    super(message, options.remedy ?? remedies[reason], options)
    this.reason = reason
  }
}

const remedies: Readonly<Record<ZdsReason, string>> = {
  'no-ztunnel': 'see why the ztunnel pod of this node does not run, or does not connect to this agent',
  refused: 'see the log of the ztunnel pod of this node',
  timeout:
    'see the log of the ztunnel pod of this node: it may hang or be overloaded; it connects anew by itself',
  closed: 'try again: ztunnel connects anew by itself; if it does not, see the log of its pod',
}
