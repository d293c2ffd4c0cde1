// SPDX-License-Identifier: Apache-2.0
import { join } from 'node:path/posix'
import {
  attachmentsMap,
  cgroupsMap,
  countersMap,
  handshakesMap,
  listenerNextMap,
  pendingMap,
  podAddrsMap,
  podsMap,
  probeFlowsMap,
  rulesMap,
  settingsMap,
} from './layout.gen.ts'
import { type MapCodec, PinnedMap, perCpu } from './pinned-map.ts'

export { CgroupRole, mapNames, PodMode, ProbeMode, ProxyIdentity, type Settings } from './layout.gen.ts'

/** The pinned maps, each opened when it is first asked for. Owns their descriptors: declare it with `using`. */
export class Store implements Disposable {
  readonly #dir: string
  readonly #opened = new Map<string, Disposable>()

  /** `dir`: the bpffs directory of the map pins. */
  constructor(dir: string) {
    this.#dir = dir
  }

  get pods() {
    return this.#open(podsMap)
  }

  get podAddrs() {
    return this.#open(podAddrsMap)
  }

  get rules() {
    return this.#open(rulesMap)
  }

  get cgroups() {
    return this.#open(cgroupsMap)
  }

  get attachments() {
    return this.#open(attachmentsMap)
  }

  get listenerNext() {
    return this.#open(listenerNextMap)
  }

  get handshakes() {
    return this.#open(handshakesMap)
  }

  get pending() {
    return this.#open(pendingMap)
  }

  get probeFlows() {
    return this.#open(probeFlowsMap)
  }

  /** A value for each possible CPU. */
  get counters() {
    return this.#open({ ...perCpu(countersMap), name: countersMap.name })
  }

  /** One entry, at 0. */
  get settings() {
    return this.#open(settingsMap)
  }

  /** What a pod's registration touches. Who writes it must be able to take it back, also when descriptors run out. */
  openForPod(): void {
    const { attachments, cgroups, counters, listenerNext, pending, podAddrs, pods, rules } = this
    void [attachments, cgroups, counters, listenerNext, pending, podAddrs, pods, rules]
  }

  #open<K, V>(map: MapCodec<K, V> & { readonly name: string }): PinnedMap<K, V> {
    const known = this.#opened.get(map.name)
    if (known !== undefined) return known as PinnedMap<K, V>
    const opened = PinnedMap.open(join(this.#dir, map.name), map)
    this.#opened.set(map.name, opened)
    return opened
  }

  [Symbol.dispose](): void {
    for (const map of this.#opened.values()) map[Symbol.dispose]()
    this.#opened.clear()
  }
}
