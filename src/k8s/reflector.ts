// SPDX-License-Identifier: Apache-2.0
import { setTimeout as sleep } from 'node:timers/promises'
import type { ApiClient, WatchEvent } from './api-client.ts'
import { ClusterError } from './error.ts'
import type { FailureStreak } from './streak.ts'
import type { Timing } from './timing.ts'
import type { ApiObject } from './view.ts'
import type { Named, ViewStore } from './view-store.ts'

export interface ReflectorOptions<V extends Named> {
  readonly client: ApiClient
  readonly resource: 'pods' | 'namespaces'
  readonly query?: Readonly<Record<string, string>>
  readonly timing: Timing
  readonly streak: FailureStreak
  readonly closed: AbortSignal
  readonly store: ViewStore<V>
  readonly viewOf: (object: ApiObject) => V
}

interface List {
  readonly metadata?: { readonly resourceVersion?: string }
  readonly items?: readonly ApiObject[]
}

/** List, then watch from there; for ever. A watch that breaks goes on where it was, unless that has expired. */
export class Reflector<V extends Named> {
  readonly #options: ReflectorOptions<V>
  readonly #listed = Promise.withResolvers<void>()
  #isSynced = false
  #isOpen = false
  /** Where to watch from; undefined: list first. */
  #version: string | undefined
  /** "0": whatever the API server has at hand, as every node asks at its start. "": what is in etcd. */
  #listVersion = '0'

  constructor(options: ReflectorOptions<V>) {
    this.#options = options
  }

  /** The first list has been read. */
  get synced(): Promise<void> {
    return this.#listed.promise
  }

  get isSynced(): boolean {
    return this.#isSynced
  }

  /** Until it is closed. */
  async run(): Promise<void> {
    const { closed, streak } = this.#options
    while (!closed.aborted) {
      const err = await this.#follow()
      if (closed.aborted) return
      await sleep(streak.ended(err), undefined, { signal: closed }).catch(() => undefined)
    }
  }

  /** Resolves to the reason why it ended; undefined: the API server was done. */
  async #follow(): Promise<ClusterError | undefined> {
    this.#isOpen = false
    try {
      this.#version ??= await this.#list()
      await this.#watch(this.#version)
      return undefined
    } catch (err) {
      const failure = err instanceof ClusterError ? err : this.#unexpected(err)
      if (this.#mustListAfter(failure)) this.#version = undefined
      return failure
    }
  }

  async #list(): Promise<string> {
    const { client, resource, query = {}, timing } = this.#options
    const version = this.#listVersion === '' ? {} : { resourceVersion: this.#listVersion }
    const call = { verb: 'list', resource, subject: resource, path: `/api/v1/${resource}` } as const
    const { metadata, items }: List = await client.json(
      { ...call, query: { ...query, ...version } },
      timing.listMs,
    )
    if (metadata?.resourceVersion === undefined || items === undefined) {
      throw client.unreadable(call, new Error('no list'))
    }
    this.#options.store.replace(items.map(this.#options.viewOf))
    this.#listVersion = ''
    this.#isSynced = true
    this.#listed.resolve()
    return metadata.resourceVersion
  }

  async #watch(version: string): Promise<void> {
    const { client, resource, timing } = this.#options
    const query = {
      ...this.#options.query,
      watch: '1',
      allowWatchBookmarks: 'true',
      resourceVersion: version,
      // Not the same for all nodes.
      timeoutSeconds: String(Math.ceil((timing.watchMs / 1000) * (1 + Math.random()))),
    }
    const call = { verb: 'watch', resource, subject: resource, path: `/api/v1/${resource}`, query } as const
    await client.events(call, timing, {
      onOpen: () => {
        this.#isOpen = true
        this.#options.streak.opened()
      },
      onEvent: (event) => this.#take(event),
    })
  }

  #take({ type, object }: WatchEvent): void {
    const { store, viewOf } = this.#options
    if (type === 'ADDED' || type === 'MODIFIED') store.put(viewOf(object))
    if (type === 'DELETED') store.remove(viewOf(object))
    // Of a BOOKMARK, it is all there is.
    this.#version = object.metadata?.resourceVersion ?? this.#version
  }

  /**
   * When the API server refuses to go on from there (410 and others), and when an event is lost. Not when it could not be
   * asked.
   */
  #mustListAfter({ status }: ClusterError): boolean {
    if (status === undefined) return false
    return this.#isOpen || (status < 500 && ![401, 403, 429].includes(status))
  }

  #unexpected(cause: unknown): ClusterError {
    const { resource } = this.#options
    return new ClusterError(`cannot follow ${resource}`, 'this is a defect: please report it', { cause })
  }
}
