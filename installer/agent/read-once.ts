// SPDX-License-Identifier: Apache-2.0

/** What is read of this node, once for all who have asked by then. */
export class ReadOnce<T> {
  readonly #read: () => T
  #last: { readonly at: number; readonly value: T } | undefined

  constructor(read: () => T) {
    this.#read = read
  }

  /** As it was then or later; performance.now(). */
  since(time: number): T {
    if (this.#last === undefined || this.#last.at < time) {
      const at = performance.now()
      this.#last = { at, value: this.#read() }
    }
    return this.#last.value
  }
}
