// SPDX-License-Identifier: Apache-2.0
/** The pods that ztunnel serves, or is to serve. Owns a descriptor of the netns of each. */
import type { AttachmentKey } from '../../src/bpf/pods.ts'
import type { Netns } from '../../src/linux/netns.ts'
import { ZdsError } from '../../src/zds/error.ts'
import type { Workload, WorkloadInfo, ZdsServer } from '../../src/zds/server.ts'

interface Served {
  readonly info: WorkloadInfo
  readonly netns: Netns
  /** As which it is registered. */
  readonly key: AttachmentKey
  /** Whether a ztunnel has accepted it. */
  accepted: boolean
  /** Whether the watch has told of the pod: the plugin may have been faster. */
  seen: boolean
}

export class Workloads implements Disposable {
  readonly #served = new Map<string, Served>()
  /** Those that ztunnel was asked to keep, if it has them. */
  readonly #kept = new Set<string>()
  #server: ZdsServer | undefined

  /** Whom to tell. Until then, nobody is connected. */
  connect(server: ZdsServer): void {
    this.#server = server
  }

  get(uid: string): Readonly<Served> | undefined {
    return this.#served.get(uid)
  }

  uids(): string[] {
    return [...this.#served.keys()]
  }

  counts(): { served: number; pending: number } {
    const served = [...this.#served.values()].filter(({ accepted }) => accepted).length
    return { served, pending: this.#served.size - served }
  }

  /** For a ztunnel that connects. `lost`: pods that are not served by this, and may be by that ztunnel. */
  snapshot(lost: readonly Workload[]): Workload[] {
    for (const { uid } of lost) this.#kept.add(uid)
    return [...[...this.#served].map(([uid, { info, netns }]) => ({ uid, info, netns })), ...lost]
  }

  /** From now on in every snapshot. Takes the netns over. Resolves when the newest ztunnel has accepted it. */
  async serve(uid: string, info: WorkloadInfo, netns: Netns, key: AttachmentKey): Promise<void> {
    const before = this.#served.get(uid)
    const seen = before?.seen ?? false
    this.#served.set(uid, { info, netns, key, accepted: false, seen })
    before?.netns[Symbol.dispose]()
    await this.tell(uid)
  }

  /** For one that no ztunnel has accepted. Throws ZdsError. */
  async tell(uid: string): Promise<void> {
    const served = this.#served.get(uid)
    if (served === undefined) return
    if (this.#server === undefined) throw new ZdsError('no-ztunnel', 'no ztunnel is connected yet')
    await this.#server.add({ uid, info: served.info, netns: served.netns })
  }

  /** A ztunnel has accepted it. Whether that is news. */
  accept(uid: string): boolean {
    const served = this.#served.get(uid)
    if (served === undefined || served.accepted) return false
    served.accepted = true
    return true
  }

  /** The watch tells of the pod: from now on, also of its end. */
  see(uid: string): void {
    const served = this.#served.get(uid)
    if (served !== undefined) served.seen = true
  }

  /** Every ztunnel ends its connections at once. Idempotent. */
  async drop(uid: string): Promise<void> {
    const served = this.#served.get(uid)
    const wasKept = this.#kept.delete(uid)
    if (served === undefined && !wasKept) return
    this.#served.delete(uid)
    served?.netns[Symbol.dispose]()
    await this.#server?.del(uid)
  }

  [Symbol.dispose](): void {
    for (const { netns } of this.#served.values()) netns[Symbol.dispose]()
    this.#served.clear()
  }
}
