// SPDX-License-Identifier: Apache-2.0
import { RemedyError } from '../remedy.ts'

export interface ClusterFailure extends ErrorOptions {
  /** HTTP status, or the code of a watch's ERROR event; absent when there was no answer. */
  readonly status?: number
  /** As the API server asks for it by Retry-After. */
  readonly retryAfterMs?: number
}

/** A request to the API server that failed. The message names the API server and the status. */
export class ClusterError extends RemedyError {
  readonly status: number | undefined
  readonly retryAfterMs: number

  constructor(message: string, remedy: string, failure: ClusterFailure = {}) {
    const { status, retryAfterMs = 0, ...options } = failure
    super(message, remedy, options)
    this.status = status
    this.retryAfterMs = retryAfterMs
  }
}
