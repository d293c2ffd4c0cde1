// SPDX-License-Identifier: Apache-2.0
/** The stand-in for ztunnel (`build/tools/ztunnel-standin`): its commands, and what it has seen. */
import { type Daemon, waitFor } from './exec.ts'
import { type OwnedDaemon, parseLines, startOwned, toolPath, type Where } from './sock.ts'
import type { Answer, DnsQuery, ProxyConnection, StandinLine, ZdsEvent } from './standin-lines.ts'

export type { DnsQuery, ProxyConnection, ZdsEvent } from './standin-lines.ts'

export interface StandinOptions extends Where {
  /** SO_MARK of its sockets; default 0x539, as ztunnel. `false`: none. */
  readonly mark?: number | false
  /** One proxy for the node, which listens in its own netns at these addresses. */
  readonly shared?: { readonly ipv4: string; readonly ipv6?: string }
  readonly name?: string
  /** As with ztunnel's IPV6_ENABLED=false. */
  readonly ipv4Only?: boolean
  /** Path of the node agent's socket, which need not be there yet. */
  readonly zds?: string
  /** Faults: acks that come later or never, and why every proxy fails to start. */
  readonly zdsDelayAckMs?: number
  readonly zdsMute?: boolean
  readonly zdsNack?: string
}

/** A running stand-in. It ends with the test process, which holds the other end of its stdin. */
export class ZtunnelStandin implements AsyncDisposable {
  readonly daemon: Daemon
  readonly #owned: OwnedDaemon

  private constructor(owned: OwnedDaemon) {
    this.daemon = owned.daemon
    this.#owned = owned
  }

  static async start(options: StandinOptions = {}): Promise<ZtunnelStandin> {
    const command = [await toolPath('ztunnel-standin'), ...argumentsOf(options)]
    const standin = new ZtunnelStandin(await startOwned('standin', options, command))
    try {
      await standin.#answer((answer) => answer.event === 'ready', 0)
    } catch (err) {
      await standin.stop()
      throw err
    }
    return standin
  }

  /** Open its listeners in a pod's netns. Rejects as ztunnel would answer with a NACK. */
  add(netnsPath: string): Promise<void> {
    return this.#command(`add ${netnsPath}`)
  }

  /** Close the listeners and end the connections. */
  del(netnsPath: string): Promise<void> {
    return this.#command(`del ${netnsPath}`)
  }

  /** The listeners stay, and nothing is accepted. */
  stall(): Promise<void> {
    return this.#command('stall')
  }

  resume(): Promise<void> {
    return this.#command('resume')
  }

  /** Close the listeners, once their queues are empty. The process ends with its last connection, or after 5 s. */
  drain(): Promise<void> {
    return this.#command('drain')
  }

  connections(): ProxyConnection[] {
    return this.#lines().filter((line) => line.event === 'connection')
  }

  dnsQueries(): DnsQuery[] {
    return this.#lines().filter((line) => line.event === 'dns')
  }

  /** The first one, past or to come. */
  waitForConnection(predicate: (connection: ProxyConnection) => boolean): Promise<ProxyConnection> {
    return waitFor('the connection at the stand-in', () => this.connections().find(predicate))
  }

  zdsEvents(): ZdsEvent[] {
    return this.#lines().filter((line) => line.event === 'zds')
  }

  /** What ztunnel's readiness probe would answer. */
  isReady(): boolean {
    return this.zdsEvents().at(-1)?.ready ?? false
  }

  /** The first one, past or to come. */
  waitForZds(predicate: (event: ZdsEvent) => boolean): Promise<ZdsEvent> {
    return waitFor('the ZDS event at the stand-in', () => this.zdsEvents().find(predicate))
  }

  /** The end of the snapshot of this number, which is 1 for the first connection that has one. */
  waitForSnapshot(number = 1): Promise<ZdsEvent> {
    const find = () => this.zdsEvents().filter(({ what }) => what === 'snapshot')[number - 1]
    return waitFor('the snapshot at the stand-in', find)
  }

  /** Its proxy runs, or has run. */
  waitForAdd(uid: string): Promise<ZdsEvent> {
    return this.waitForZds((event) => event.what === 'add' && event.uid === uid && event.error === '')
  }

  /** SIGTERM, for one with `zds`: drain, and end. */
  async terminate(): Promise<void> {
    signal(this.daemon, 'SIGTERM')
    await this.daemon.exited
  }

  /** At once: what a crash looks like to the others. */
  stop(): Promise<void> {
    signal(this.daemon, 'SIGKILL')
    return this.#owned.stop()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  async #command(command: string): Promise<void> {
    const isAnswer = (answer: Answer): boolean => answer.event === 'ack' && answer.command === command
    const earlier = this.#answers().filter(isAnswer).length
    this.#owned.write(`${command}\n`)
    await this.#answer(isAnswer, earlier)
  }

  async #answer(isAnswer: (answer: Answer) => boolean, earlier: number): Promise<void> {
    const { command = 'start', error } = await waitFor('an answer of the stand-in', () => {
      const hasExited = this.daemon.hasExited()
      const answer = this.#answers().filter(isAnswer)[earlier]
      if (!answer && hasExited) throw new Error(`the stand-in has ended: ${this.#owned.log()}`)
      return answer
    })
    if (error) throw new Error(`stand-in: ${command}: ${error}`)
  }

  #answers(): Answer[] {
    return this.#lines().filter(
      (line) => line.event !== 'connection' && line.event !== 'dns' && line.event !== 'zds',
    )
  }

  #lines(): StandinLine[] {
    return parseLines(this.#owned.log())
  }
}

function signal(daemon: Daemon, name: 'SIGTERM' | 'SIGKILL'): void {
  if (daemon.hasExited()) return
  try {
    process.kill(daemon.pid, name)
  } catch (err) {
    // It has just ended.
    if ((err as NodeJS.ErrnoException).code !== 'ESRCH') throw err
  }
}

function argumentsOf(options: StandinOptions): string[] {
  const { mark, shared, name, ipv4Only = false, zds, zdsDelayAckMs, zdsMute = false, zdsNack } = options
  return [
    ...(mark === false ? ['--no-mark'] : []),
    ...(mark ? ['--mark', String(mark)] : []),
    ...(shared ? ['--shared', [shared.ipv4, shared.ipv6].filter(Boolean).join()] : []),
    ...(name ? ['--name', name] : []),
    ...(ipv4Only ? ['--ipv4-only'] : []),
    ...(zds ? ['--zds', zds] : []),
    ...(zdsDelayAckMs ? ['--zds-delay-ack', String(zdsDelayAckMs)] : []),
    ...(zdsMute ? ['--zds-mute'] : []),
    ...(zdsNack ? ['--zds-nack', zdsNack] : []),
  ]
}
