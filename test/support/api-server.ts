// SPDX-License-Identifier: Apache-2.0
/**
 * A stand-in for the Kubernetes API server, over HTTP on loopback: pods and namespaces with list, watch, get, and a merge
 * patch of pods/status, as kube-apiserver 1.34 answers them. And what goes wrong with one, on demand.
 */
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ApiHandler } from './api-server/handler.ts'
import { registerCleanup } from './cleanup.ts'

export class ApiServer extends ApiHandler implements AsyncDisposable {
  readonly #server = createServer((request, response) => void this.handle(request, response))
  readonly #dir = mkdtempSync(join(tmpdir(), 'ambridge-api-'))
  readonly #remove = registerCleanup(() => rmSync(this.#dir, { recursive: true, force: true }))
  #port = 0

  static async start(): Promise<ApiServer> {
    const api = new ApiServer()
    await api.up()
    api.writeKubeconfig()
    return api
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`
  }

  /** Path of the file. */
  get kubeconfig(): string {
    return join(this.#dir, 'kubeconfig')
  }

  /** With the token as it is now. */
  writeKubeconfig(): void {
    const config = {
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: 'stand-in', cluster: { server: this.url, 'insecure-skip-tls-verify': true } }],
      users: [{ name: 'agent', user: { token: this.token } }],
      contexts: [{ name: 'test', context: { cluster: 'stand-in', user: 'agent' } }],
      'current-context': 'test',
    }
    writeFileSync(this.kubeconfig, JSON.stringify(config), { mode: 0o600 })
  }

  /** Watches break, as a network breaks them. */
  dropWatches(): void {
    for (const watch of this.watches) watch.drop()
  }

  /** Watches end, as the API server ends them now and then. */
  endWatches(): void {
    for (const watch of this.watches) watch.end()
  }

  /** Connections are refused. */
  async down(): Promise<void> {
    const closed = once(this.#server, 'close')
    this.#server.close()
    this.#server.closeAllConnections()
    await closed
  }

  /** Listens again, where it did. */
  async up(): Promise<void> {
    this.#server.listen(this.#port, '127.0.0.1')
    await once(this.#server, 'listening')
    this.#port = (this.#server.address() as AddressInfo).port
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#server.listening) await this.down()
    await this.#remove()
  }
}
