// SPDX-License-Identifier: Apache-2.0
/** A repeatable random: the same seed and name, the same numbers. */
export class Random {
  #state: number

  /** `name`: each who draws has numbers of its own, whatever the others do. */
  constructor(seed: number, name = '') {
    this.#state = [...name].reduce((hash, char) => Math.imul(hash ^ char.charCodeAt(0), 16777619), seed)
  }

  /** 0 up to 1, without it (mulberry32). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }

  /** A whole number, both ends included. */
  between(min: number, max: number): number {
    return min + Math.floor(this.next() * (max - min + 1))
  }

  chance(probability: number): boolean {
    return this.next() < probability
  }
}
