// SPDX-License-Identifier: Apache-2.0
/** The proxies' listeners, as the inbound programs look for them (docs/adr/0009). */
import { join } from 'node:path/posix'
import { type ListenerKey, listenerNextMap } from './layout.gen.ts'
import { type MapCodec, PinnedMap } from './pinned-map.ts'
import type { Store } from './store.ts'

/** One port of a pod, in one family. */
export type ListenerPort = Omit<ListenerKey, 'slot'>

/** What is written is a descriptor of the socket, what is read its cookie. */
const codec: MapCodec<ListenerKey, bigint> = {
  ...listenerNextMap,
  valueSize: 8,
  encode: (fd) => Buffer.from(BigUint64Array.of(fd).buffer),
  decode: (bytes) => bytes.readBigUInt64LE(0),
}

/** LISTENER_SLOTS in bpf/layout.h */
const slots = 8

export class Listeners implements Disposable {
  readonly #map: PinnedMap<ListenerKey, bigint>

  /** `dir`: the bpffs directory of the map pins. */
  constructor(dir: string) {
    this.#map = PinnedMap.open(join(dir, 'listeners'), codec)
  }

  /** Of listeners that are open now. */
  ports(): ListenerPort[] {
    return this.#map.keys()
  }

  /**
   * A listener that is older than all that are known: the slot that is asked last, of those that are free. sockops counts slots
   * upwards, so it and this do not get in each other's way. False when none is free.
   */
  addOldest(port: ListenerPort, fd: number, store: Store): boolean {
    const next = store.listenerNext.get({ ...port, slot: 0 }) ?? 0
    for (let i = 1; i <= slots; i++) {
      const slot = (next + slots - i) % slots
      if (this.#map.insert({ ...port, slot }, BigInt(fd))) return true
    }
    return false
  }

  [Symbol.dispose](): void {
    this.#map[Symbol.dispose]()
  }
}
