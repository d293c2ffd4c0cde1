// SPDX-License-Identifier: Apache-2.0
/** A ZDS server whose descriptors and timers are counted, with what it logs. */
import { mkdtempSync, readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'vitest'
import { Netns } from '../../src/linux/netns.ts'
import { Poller } from '../../src/linux/poller.ts'
import { createLogger, type Entry } from '../../src/log.ts'
import { type Workload, ZdsServer, type ZdsServerOptions } from '../../src/zds/server.ts'
import { own } from './cleanup.ts'
import { waitFor } from './exec.ts'
import { ZdsClient } from './zds-client.ts'

export const openDescriptors = () => readdirSync('/proc/self/fd').length
const timers = () => process.getActiveResourcesInfo().filter((type) => type === 'Timeout').length

export class ZdsField implements AsyncDisposable {
  readonly dir = mkdtempSync(join(tmpdir(), 'zds-'))
  readonly path = join(this.dir, 'ztunnel.sock')
  readonly poller: Poller
  readonly server: ZdsServer
  readonly log: Entry[] = []
  readonly served: string[] = []
  /** Every count that was told. */
  readonly counts: number[] = []
  readonly netns: Netns
  /** For the next ztunnel that says hello. */
  workloads: readonly Workload[] = []
  readonly #clients: ZdsClient[] = []
  readonly #removeDir = own({ kind: 'dir', path: this.dir })
  readonly #descriptorsBefore: number
  readonly #timersBefore = timers()

  constructor(options: Partial<ZdsServerOptions> = {}) {
    this.#descriptorsBefore = openDescriptors()
    this.netns = Netns.open('/proc/self/ns/net')
    this.poller = new Poller()
    const sink = { write: (entry: Entry) => void this.log.push(entry), flush: async () => {} }
    this.server = ZdsServer.listen({
      path: this.path,
      poller: this.poller,
      log: createLogger('debug', sink),
      snapshot: () => this.workloads,
      admit: () => {},
      onServed: (uid) => this.served.push(uid),
      onConnections: (count) => this.counts.push(count),
      timeoutMs: 20_000,
      ...options,
    })
  }

  /** A connection that says nothing yet. */
  connect(): ZdsClient {
    const client = new ZdsClient(this.path, this.poller)
    this.#clients.push(client)
    return client
  }

  /** A ztunnel that has its snapshot. */
  async ztunnel(): Promise<ZdsClient> {
    const before = this.logged('snapshot sent').length
    const client = this.connect()
    client.hello()
    await client.snapshot()
    await waitFor('the server has its last answer', () => this.logged('snapshot sent').length > before)
    return client
  }

  workload(uid: string, name = uid): Workload & { readonly netns: Netns } {
    return { uid, info: { name, namespace: 'ns', serviceAccount: 'sa' }, netns: this.netns }
  }

  /** What the client is told for it. */
  added(uid: string): unknown {
    return { add: uid, info: `ns/${uid}/sa`, netns: this.netns.identity }
  }

  logged(message: string): Entry[] {
    return this.log.filter((entry) => entry.message === message)
  }

  /** Ends all; and no descriptor and no timer is left. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.server[Symbol.asyncDispose]()
    for (const client of this.#clients) client[Symbol.dispose]()
    this.poller[Symbol.dispose]()
    this.netns[Symbol.dispose]()
    await this.#removeDir()
    await waitFor('all descriptors are closed', () => openDescriptors() <= this.#descriptorsBefore)
    expect(openDescriptors()).toBe(this.#descriptorsBefore)
    await waitFor('no timer runs any more', () => timers() <= this.#timersBefore)
  }
}
