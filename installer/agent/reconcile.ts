// SPDX-License-Identifier: Apache-2.0
/** Compares what should be on this node with what is, and puts right what differs. */
import { adoptListeners } from '../../src/pods/listeners.ts'
import { removeLeftovers } from '../../src/pods/repair.ts'
import { load } from '../programs/load.ts'
import type { LoadOptions } from '../programs/settings.ts'
import type { Host } from './host.ts'
import type { AgentNode } from './node.ts'
import type { PodSync } from './pod-sync.ts'
import type { Proxies } from './proxies.ts'

export interface ReconcilerParts {
  readonly node: AgentNode
  readonly pods: PodSync
  readonly host: Host | undefined
  readonly load: LoadOptions
  readonly periodMs: number
  readonly proxies: Proxies
}

export class Reconciler implements AsyncDisposable {
  readonly #parts: ReconcilerParts
  readonly #timer: NodeJS.Timeout
  #running: Promise<void> | undefined
  #problem: string | undefined

  constructor(parts: ReconcilerParts) {
    this.#parts = parts
    this.#timer = setInterval(() => void this.run(), parts.periodMs)
  }

  /** Why the programs are not as they should be; undefined: they are. */
  get problem(): string | undefined {
    return this.#problem
  }

  /** One at a time; never rejects. */
  run(): Promise<void> {
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined
    })
    return this.#running
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer)
    await this.#running
  }

  async #run(): Promise<void> {
    const { host, pods, node } = this.#parts
    host?.keep()
    try {
      this.#repairPrograms()
      await pods.syncAll()
      this.#adoptListeners()
      this.#problem = undefined
    } catch (err) {
      const { message } = err as Error
      if (this.#problem !== message) node.log.error('cannot reconcile this node', { error: err })
      node.metrics.failures.inc({ operation: 'reconcile' })
      this.#problem = message
    }
  }

  /** The node's own links first: a pod that is repaired without them would talk past the mesh. */
  #repairPrograms(): void {
    const { node, load: options, proxies } = this.#parts
    const proxyCgroups = [...options.proxyCgroups, ...proxies.cgroups()]
    for (const { kind, name, result } of load({ ...options, proxyCgroups })) {
      if (kind !== 'settings' && result !== 'already there') this.#repaired(kind, name, result)
    }
    for (const { kind, subject, detail } of removeLeftovers(node.bpffs)) this.#repaired(kind, subject, detail)
  }

  #adoptListeners(): void {
    const { node, proxies } = this.#parts
    for (const { netns, port, family } of adoptListeners(proxies.pids(), node.bpffs)) {
      this.#repaired('listener', `netns ${netns}`, `port ${port}, IPv${family}`)
    }
  }

  #repaired(kind: string, subject: string, detail: string): void {
    const { log, metrics } = this.#parts.node
    log.warn('repaired', { kind, subject, detail })
    metrics.repairs.inc({ kind })
  }
}
