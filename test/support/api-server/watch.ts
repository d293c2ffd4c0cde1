// SPDX-License-Identifier: Apache-2.0
import type { ServerResponse } from 'node:http'
import type { Change } from './collection.ts'
import type { KubeObject } from './objects.ts'

export interface WatchOptions {
  readonly kind: KubeObject['kind']
  readonly from: number
  readonly bookmarks: boolean
  readonly timeoutSeconds: number | undefined
  selects(object: KubeObject): boolean
}

/** One watch of a client. */
export class WatchStream {
  readonly #response: ServerResponse
  readonly #changes: readonly Change[]
  readonly #options: WatchOptions
  #version: number
  #isOver = false

  constructor(response: ServerResponse, changes: readonly Change[], options: WatchOptions) {
    this.#response = response
    this.#changes = changes
    this.#options = options
    this.#version = options.from
    response.writeHead(200, { 'content-type': 'application/json' })
    response.flushHeaders()
    const { timeoutSeconds } = options
    if (timeoutSeconds === undefined) return
    const timer = setTimeout(() => this.end(), timeoutSeconds * 1000)
    response.on('close', () => clearTimeout(timer))
  }

  /** What has changed since the last time. */
  flush(): void {
    const news = this.#changes.filter(({ version }) => version > this.#version)
    for (const { version, type, object } of news) {
      this.#version = version
      if (this.#options.selects(object)) this.send(type, object)
    }
  }

  /** To a client that has asked for them. */
  bookmark(version: number): void {
    const { bookmarks, kind } = this.#options
    if (bookmarks)
      this.send('BOOKMARK', { kind, apiVersion: 'v1', metadata: { resourceVersion: String(version) } })
  }

  send(type: string, object: unknown): void {
    this.write(`${JSON.stringify({ type, object })}\n`)
  }

  write(text: string): void {
    if (!this.#isOver) this.#response.write(text)
  }

  get isOver(): boolean {
    return this.#isOver
  }

  /** As the API server does after timeoutSeconds. */
  end(): void {
    this.#isOver = true
    this.#response.end()
  }

  /** As a network does, in the middle of a line. */
  drop(): void {
    this.write('{"type":"MODI')
    this.#isOver = true
    this.#response.write('', () => this.#response.destroy())
  }
}
