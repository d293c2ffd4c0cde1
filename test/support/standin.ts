// SPDX-License-Identifier: Apache-2.0
/** The stand-in for ztunnel (`build/tools/ztunnel-standin`): its commands, and what it has seen. */
import { type Daemon, waitFor } from './exec.ts'
import { type OwnedDaemon, parseLines, startOwned, toolPath, type Where } from './sock.ts'

export interface StandinOptions extends Where {
  /** SO_MARK of its sockets; default 0x539, as ztunnel. `false`: none. */
  readonly mark?: number | false
  /** One proxy for the node, which listens in its own netns at these addresses. */
  readonly shared?: { readonly ipv4: string; readonly ipv6?: string }
  readonly name?: string
  /** As with ztunnel's IPV6_ENABLED=false. */
  readonly ipv4Only?: boolean
}

/** Addresses are `ip:port` or `[ip]:port`, IPv4-mapped ones as IPv4. */
export interface ProxyConnection {
  readonly event: 'connection'
  readonly standin: string
  /** Path as given to add(), or `own`. */
  readonly netns: string
  readonly listener: 15001 | 15006 | 15008
  /** getsockname() of the accepted socket. */
  readonly local: string
  /** As accept() gave it. */
  readonly peer: string
  readonly original: string
  readonly via_sockopt: 'SOL_IP' | 'SOL_IPV6' | 'getsockname'
  /** null: refused without dialling */
  readonly dialled: string | null
  /** Address, without port, that the upstream socket was bound to; null: its own */
  readonly source: string | null
  /** Empty when the upstream connection came about. `bind ...` alone does not prevent it. */
  readonly error: string
}

export interface DnsQuery {
  readonly event: 'dns'
  readonly standin: string
  readonly netns: string
  readonly transport: 'udp' | 'tcp'
  readonly client: string
  readonly name: string
  /** 1: A, 28: AAAA */
  readonly type: number
}

interface Answer {
  readonly event: 'ready' | 'ack'
  readonly command?: string
  readonly error: string
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

  /** At once: what a crash looks like to the others. */
  stop(): Promise<void> {
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
    return this.#lines().filter((line) => line.event !== 'connection' && line.event !== 'dns')
  }

  #lines(): (ProxyConnection | DnsQuery | Answer)[] {
    return parseLines(this.#owned.log())
  }
}

function argumentsOf({ mark, shared, name, ipv4Only = false }: StandinOptions): string[] {
  return [
    ...(mark === false ? ['--no-mark'] : []),
    ...(mark ? ['--mark', String(mark)] : []),
    ...(shared ? ['--shared', [shared.ipv4, shared.ipv6].filter(Boolean).join()] : []),
    ...(name ? ['--name', name] : []),
    ...(ipv4Only ? ['--ipv4-only'] : []),
  ]
}
