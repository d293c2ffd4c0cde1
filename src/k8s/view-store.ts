// SPDX-License-Identifier: Apache-2.0
import { isDeepStrictEqual } from 'node:util'

export interface Named {
  readonly name: string
  /** Where a new object of the same name is to be told from the old one. */
  readonly uid?: string
}

type Change<V> = (now: V | undefined, before: V | undefined) => void

/** Views by name. Tells what changes, also between two lists. */
export class ViewStore<V extends Named> {
  readonly #views = new Map<string, V>()
  readonly #keyOf: (view: V) => string
  readonly #onChange: Change<V>

  constructor(keyOf: (view: V) => string, onChange: Change<V>) {
    this.#keyOf = keyOf
    this.#onChange = onChange
  }

  get(key: string): V | undefined {
    return this.#views.get(key)
  }

  all(): V[] {
    return [...this.#views.values()]
  }

  put(now: V): void {
    const key = this.#keyOf(now)
    const before = this.#views.get(key)
    if (isDeepStrictEqual(now, before)) return
    // Another object of the same name: the deletion was not seen.
    if (before !== undefined && before.uid !== now.uid) {
      this.#delete(key, before)
      this.put(now)
      return
    }
    this.#views.set(key, now)
    this.#onChange(now, before)
  }

  remove(view: V): void {
    const key = this.#keyOf(view)
    const before = this.#views.get(key)
    if (before !== undefined) this.#delete(key, before)
  }

  /** What is not in the list is gone. */
  replace(views: readonly V[]): void {
    const keys = new Set(views.map(this.#keyOf))
    for (const [key, before] of [...this.#views]) {
      if (!keys.has(key)) this.#delete(key, before)
    }
    for (const view of views) this.put(view)
  }

  #delete(key: string, before: V): void {
    this.#views.delete(key)
    this.#onChange(undefined, before)
  }
}
