// SPDX-License-Identifier: Apache-2.0
/** A pod's sidecar: the real Envoy in the pod's netns, as the user istio-proxy runs as; and what else istio-agent does. */
import { fileURLToPath } from 'node:url'
import { envoyPath } from '../support/envoy.ts'
import { type ExecResult, tryRun, waitFor } from '../support/exec.ts'
import { enter, type OwnedDaemon, startOwned, type Where } from '../support/sock.ts'
import { bootstrap, type Connection, type Service } from './bootstrap.ts'

export const proxyUser = 1337

/** The command, run as the proxy's user, who may also read what lies in root's home: the checkout may be there. */
export function asProxy(command: readonly string[]): string[] {
  const user = [`--reuid=${proxyUser}`, `--regid=${proxyUser}`, '--clear-groups']
  const readable = ['--inh-caps=+dac_read_search', '--ambient-caps=+dac_read_search']
  return ['setpriv', ...user, ...readable, '--', ...command]
}

/** istio-validation of that family, which runs as the proxy's user. */
export function validate(where: Where, family: 4 | 6): Promise<ExecResult> {
  const script = fileURLToPath(new URL('validation.py', import.meta.url))
  const [command = '', ...args] = enter(where, asProxy(['python3', script, String(family)]))
  return tryRun(command, args)
}

/** Where its log shows that it serves. A daemon that has ended before is an error, with its log. */
async function untilLogged({ daemon, log }: OwnedDaemon, what: string, text: string): Promise<void> {
  await waitFor(what, () => {
    // Asked first: what a daemon that has ended has written is in the log.
    const hasExited = daemon.hasExited()
    if (log().includes(text)) return true
    if (hasExited) throw new Error(`${what} has ended: ${log()}`)
    return false
  })
}

export interface DnsServerOptions {
  readonly port: number
  /** IPv4 address. */
  readonly answer: string
  readonly addresses: readonly string[]
  readonly asProxy?: boolean
}

/** See dns-server.ts. It ends with the test process. */
export async function startDnsServer(where: Where, options: DnsServerOptions): Promise<void> {
  const script = fileURLToPath(new URL('dns-server.ts', import.meta.url))
  const command = [process.execPath, script, String(options.port), options.answer, ...options.addresses]
  const owned = await startOwned('dns', where, options.asProxy ? asProxy(command) : command)
  await untilLogged(owned, 'DNS server', 'ready')
}

export class Sidecar implements AsyncDisposable {
  readonly #owned: OwnedDaemon
  readonly #given = new Set<number>()

  private constructor(owned: OwnedDaemon) {
    this.#owned = owned
  }

  /** Two workers, so two SO_REUSEPORT listeners for each port. Resolves when they serve. */
  static async start(where: Where, services: readonly Service[] = []): Promise<Sidecar> {
    const command = [
      await envoyPath(),
      ...['--config-yaml', JSON.stringify(bootstrap(services))],
      ...['--concurrency', '2', '--disable-hot-restart'],
      ...['--file-flush-interval-msec', '10', '--log-level', 'info'],
    ]
    const sidecar = new Sidecar(await startOwned('envoy', where, asProxy(command)))
    try {
      await untilLogged(sidecar.#owned, 'Envoy', 'starting workers')
    } catch (err) {
      await sidecar.stop()
      throw err
    }
    return sidecar
  }

  /** All that have ended, in the order of their ends. */
  connections(): Connection[] {
    return this.#owned
      .log()
      .split('\n')
      .slice(0, -1)
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line) as Connection)
  }

  /** The one that the client at `remote` made; waits for its end. Each is given once: a port may be used again. */
  async connectionFrom(remote: string | null): Promise<Connection> {
    const isIt = (one: Connection, index: number): boolean => one.remote === remote && !this.#given.has(index)
    const find = (): number | false => {
      const index = this.connections().findIndex(isIt)
      return index >= 0 && index
    }
    const index = await waitFor(`a connection of ${remote} in Envoy's access log`, find)
    this.#given.add(index)
    return this.connections()[index] as Connection
  }

  stop(): Promise<void> {
    return this.#owned.stop()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }
}
