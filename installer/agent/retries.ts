// SPDX-License-Identifier: Apache-2.0
import type { Logger } from '../../src/log.ts'
import type { Metrics } from './metrics.ts'

const firstMs = 500
const longestMs = 15_000

export interface RetriesOptions {
  readonly log: Logger
  readonly metrics: Metrics
  retry(uid: string): void
}

interface Failing {
  readonly count: number
  readonly message: string
  readonly timer: NodeJS.Timeout | undefined
}

/** Pods for which something failed: tried again, later each time. A reason is told once. */
export class Retries implements Disposable {
  readonly #options: RetriesOptions
  readonly #failing = new Map<string, Failing>()
  #disposed = false

  constructor(options: RetriesOptions) {
    this.#options = options
  }

  succeeded(uid: string): void {
    const failing = this.#failing.get(uid)
    if (failing === undefined) return
    clearTimeout(failing.timer)
    this.#failing.delete(uid)
    this.#options.log.info('pod is as it should be again', { uid, failures: failing.count })
  }

  failed(uid: string, error: unknown): void {
    const { log, metrics, retry } = this.#options
    const { message, remedy } = error as Error & { remedy?: string }
    const before = this.#failing.get(uid)
    clearTimeout(before?.timer)
    metrics.failures.inc({ operation: 'pod' })
    if (before?.message !== message) log.warn('pod is not as it should be', { uid, error, remedy })
    const count = (before?.count ?? 0) + 1
    const delay = Math.min(firstMs * 2 ** (count - 1), longestMs)
    const timer = this.#disposed ? undefined : setTimeout(() => retry(uid), delay)
    this.#failing.set(uid, { count, message, timer })
  }

  /** Nothing is tried again. */
  [Symbol.dispose](): void {
    this.#disposed = true
    for (const { timer } of this.#failing.values()) clearTimeout(timer)
  }
}
