// SPDX-License-Identifier: Apache-2.0
import type { Logger } from '../log.ts'
import type { ClusterError } from './error.ts'
import type { Timing } from './timing.ts'

/** An API server may ask to be left alone for as long; more would be a mistake. */
const maxRetryAfterMs = 60_000

/** How long to wait after a failure, and which ones to tell: each once, until a watch has lived for a while. */
export class FailureStreak {
  readonly #log: Logger
  readonly #timing: Timing
  readonly #told = new Set<string>()
  #failures = 0
  #openSince: number | undefined
  #downSince: number | undefined

  constructor(log: Logger, timing: Timing) {
    this.#log = log
    this.#timing = timing
  }

  /** A watch is answered. */
  opened(): void {
    this.#openSince = performance.now()
    if (this.#downSince === undefined) return
    this.#log.info('the API server is followed again', {
      afterSeconds: Math.round((performance.now() - this.#downSince) / 1000),
    })
    this.#downSince = undefined
  }

  /** A watch has ended, by an error or by the API server. Gives the milliseconds until the next attempt. */
  ended(err: ClusterError | undefined): number {
    const livedMs = this.#openSince === undefined ? 0 : performance.now() - this.#openSince
    this.#openSince = undefined
    if (livedMs >= this.#timing.steadyMs) {
      this.#failures = 0
      this.#told.clear()
    }
    // That a resourceVersion expires, or that an old connection breaks, is how it goes.
    if (livedMs >= this.#timing.steadyMs || err?.status === 410)
      this.#log.debug('a watch has ended', { error: err })
    else this.#tell(err)
    return Math.max(this.#pauseMs(), Math.min(err?.retryAfterMs ?? 0, maxRetryAfterMs))
  }

  #tell(err: ClusterError | undefined): void {
    const error = err ?? 'the API server ends the watch at once'
    const key = String(error)
    if (this.#told.has(key)) return
    this.#told.add(key)
    this.#downSince ??= performance.now()
    this.#log.warn('cannot follow the API server', {
      error,
      ...(err === undefined ? {} : { remedy: err.remedy }),
    })
  }

  /** Doubles with each failure, and is never the same for all nodes. */
  #pauseMs(): number {
    const { minPauseMs, maxPauseMs } = this.#timing
    const most = Math.min(maxPauseMs, minPauseMs * 2 ** this.#failures)
    this.#failures = Math.min(this.#failures + 1, 30)
    return most * (0.5 + Math.random() / 2)
  }
}
