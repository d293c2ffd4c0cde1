// SPDX-License-Identifier: Apache-2.0
/** Load of many connections: `sock` in the background, and what is left of it in the maps. */
import { Store } from '../../src/bpf/store.ts'
import { pinPaths } from '../../src/linux/bpffs.ts'
import { waitFor } from '../support/exec.ts'
import type { Enrolled, Mesh } from '../support/mesh.ts'
import type { Netns } from '../support/netns.ts'
import { type OwnedDaemon, parseLines, startOwned, toolPath, type Where } from '../support/sock.ts'

/** What `sock churn` has done. */
export interface Churned {
  readonly made: number
  readonly ok: number
  readonly errors: Readonly<Record<string, number>>
}

/** `sock ARGS...`, until it is disposed. */
export class BackgroundSock implements AsyncDisposable {
  readonly #owned: OwnedDaemon

  private constructor(owned: OwnedDaemon) {
    this.#owned = owned
  }

  static async start(where: Where, args: readonly string[]): Promise<BackgroundSock> {
    return new BackgroundSock(await startOwned('load', where, [await toolPath('sock'), ...args]))
  }

  lines<T>(): T[] {
    return parseLines<T>(this.#owned.log())
  }

  /** The line of this number, past or to come. */
  async line<T>(index: number, timeoutMs = 30_000): Promise<T> {
    return waitFor(
      `line ${index} of sock`,
      () => {
        const hasExited = this.#owned.daemon.hasExited()
        const line = this.lines<T>()[index]
        if (line === undefined && hasExited) throw new Error(`sock has ended: ${this.#owned.log()}`)
        return line
      },
      { timeoutMs },
    )
  }

  /** Say something on its stdin. */
  tell(): void {
    this.#owned.write('\n')
  }

  stop(): Promise<void> {
    return this.#owned.stop()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }
}

/** Short connections, until `stop()` gives what became of them. Every reply has to contain `expected`. */
export async function startChurn(
  where: Where,
  [host, port]: readonly [string, number],
  expected: string,
): Promise<{ readonly stop: () => Promise<Churned> }> {
  const args = ['churn', host, String(port), '--expect', expected, '--pause', '10', '--timeout', '10000']
  const churn = await BackgroundSock.start(where, args)
  const stop = async (): Promise<Churned> => {
    churn.tell()
    const result = await churn.line<Churned>(0)
    await churn.stop()
    return result
  }
  return { stop }
}

/** Entries in `handshakes`, of all pods, and the number that `pending` has of this one. */
export async function countHandshakes(
  mesh: Mesh,
  enrolled: Enrolled,
): Promise<{ readonly entries: number; readonly pending: number }> {
  const cookie = BigInt((await mesh.statusOf(enrolled))?.netnsCookie ?? 0)
  using store = new Store(pinPaths(mesh.bpffs).maps)
  return { entries: store.handshakes.keys().length, pending: Number(store.pending.get(cookie) ?? 0n) }
}

/** Drops the packets to this netns that match. Disposing it ends that. */
export async function dropInput(netns: Netns, match: string): Promise<AsyncDisposable> {
  const chain = `chain c {\ntype filter hook input priority 0\n${match} drop\n}`
  await netns.run('nft', ['-f', '-'], { input: `table inet dropped {\n${chain}\n}\n` })
  const dispose = async () => void (await netns.run('nft', ['delete', 'table', 'inet', 'dropped']))
  return { [Symbol.asyncDispose]: dispose }
}
