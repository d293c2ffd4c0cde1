// SPDX-License-Identifier: Apache-2.0

/** Aborts when the given signal does, or after a limit, which can be set anew. */
export class Deadline implements Disposable {
  readonly #controller = new AbortController()
  readonly #closed: AbortSignal
  readonly #abort = () => this.#controller.abort()
  #timer: NodeJS.Timeout | undefined
  #limitMs = 0
  #expired = false

  constructor(closed: AbortSignal, limitMs: number) {
    this.#closed = closed
    closed.addEventListener('abort', this.#abort)
    if (closed.aborted) this.#abort()
    this.limit(limitMs)
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  get expired(): boolean {
    return this.#expired
  }

  get limitMs(): number {
    return this.#limitMs
  }

  /** From now on. */
  limit(ms: number): void {
    clearTimeout(this.#timer)
    this.#limitMs = ms
    this.#timer = setTimeout(() => {
      this.#expired = true
      this.#abort()
    }, ms)
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer)
    this.#closed.removeEventListener('abort', this.#abort)
  }
}
