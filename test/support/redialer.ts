// SPDX-License-Identifier: Apache-2.0
/** A client in the background that connects again and again: `sock redial`. */
import { type OwnedDaemon, parseLines, type ServerView, startOwned, toolPath, type Where } from './sock.ts'

export interface Attempt {
  /** As Date.now(). */
  readonly from: number
  readonly to: number
  readonly ok: boolean
  readonly error?: string
  readonly at?: string
  readonly local: string
  readonly reply: ServerView | null
}

export class Redialer implements AsyncDisposable {
  readonly #owned: OwnedDaemon

  private constructor(owned: OwnedDaemon) {
    this.#owned = owned
  }

  static async start(where: Where, host: string, port: number, pauseMs: number): Promise<Redialer> {
    const options = ['--pause', String(pauseMs), '--timeout', '1000']
    const command = [await toolPath('sock'), 'redial', host, String(port), ...options]
    return new Redialer(await startOwned('redial', where, command))
  }

  /** Ends it. Gives all attempts. */
  async end(): Promise<Attempt[]> {
    const { daemon, log, stop } = this.#owned
    await daemon.stop()
    const attempts = parseLines<Attempt>(log())
    await stop()
    return attempts
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#owned.stop()
  }
}

/** The server saw the client itself, not a proxy. */
export function isUncaptured({ local, reply }: Attempt): boolean {
  return reply !== null && reply.peer === local
}
