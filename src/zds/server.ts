// SPDX-License-Identifier: Apache-2.0
import type { Netns } from '../linux/netns.ts'
import type { Poller } from '../linux/poller.ts'
import type { Peer } from '../linux/unix.ts'
import type { Logger } from '../log.ts'
import { Connection, type Workload } from './connection.ts'
import { ZdsError } from './error.ts'
import { Gate } from './gate.ts'

export type { Workload } from './connection.ts'
export type { WorkloadInfo } from './messages.ts'

export interface ZdsServerOptions {
  /** Of the socket; its directory is there. */
  readonly path: string
  readonly poller: Poller
  readonly log: Logger
  /**
   * All workloads, for a ztunnel that has just said hello: it drops those that are missing. One whose add() is under way
   * must be among them: another ztunnel is told by that. Each netns is duplicated at once.
   */
  snapshot(): readonly Workload[]
  /** Throws to refuse: RemedyError, for the log. */
  admit(peer: Peer): void
  /** A ztunnel has acknowledged the Add of a workload, in a snapshot or after. */
  onServed?(uid: string): void
  onConnections?(count: number): void
  /** For the hello, and for each acknowledgement. Default 5000. */
  readonly timeoutMs?: number
}

/** Connections that have not said hello; one more, and the oldest goes. A ztunnel says it as soon as it is connected. */
const maxSilent = 16
/** Those that have; likewise. There are two while a ztunnel is replaced. */
const maxReady = 8

/** Tells the ztunnels of this node which pods they serve, and hands them the network namespaces. */
export class ZdsServer implements AsyncDisposable {
  readonly #options: ZdsServerOptions
  readonly #gate: Gate
  /** In the order in which they were accepted; and what resolves when each has ended. */
  readonly #all = new Map<Connection, Promise<void>>()

  private constructor(options: ZdsServerOptions) {
    this.#options = options
    const { path, poller, log } = options
    this.#gate = new Gate({
      path,
      poller,
      log,
      admit: (peer) => options.admit(peer),
      onConnection: (socket, peer) => this.#serve(socket, peer),
    })
  }

  /** Throws SystemError. */
  static listen(options: ZdsServerOptions): ZdsServer {
    return new ZdsServer(options)
  }

  /** How many ztunnels have said hello and are still there. */
  get connections(): number {
    return this.#in('ready').length
  }

  /** By the newest ztunnel, which takes new connections over. Resolves when it has acknowledged. Throws ZdsError. */
  async add(workload: Workload & { readonly netns: Netns }): Promise<void> {
    const newest = this.#in('ready').at(-1)
    if (newest === undefined) throw new ZdsError('no-ztunnel', 'no ztunnel is connected')
    await newest.add(workload)
  }

  /** From every ztunnel. Resolves when all have acknowledged, and when there is none. Throws ZdsError. */
  async del(uid: string): Promise<void> {
    const answers = await Promise.allSettled(this.#in('ready').map((ztunnel) => ztunnel.del(uid)))
    const errors = answers.flatMap((answer) => (answer.status === 'rejected' ? [answer.reason] : []))
    if (errors.length === 0) return
    const [first] = errors
    if (errors.length === 1 || !(first instanceof ZdsError)) throw first
    throw new ZdsError(first.reason, errors.map(({ message }) => message).join('; '), {
      cause: new AggregateError(errors),
    })
  }

  /** Rejects what is not acknowledged yet. Idempotent. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#gate[Symbol.dispose]()
    const ended = [...this.#all.values()]
    endAll(this.#all.keys(), 'the agent stops')
    await Promise.all(ended)
  }

  /** The newest last. */
  #in(state: Connection['state']): Connection[] {
    return [...this.#all.keys()].filter((connection) => connection.state === state)
  }

  #serve(socket: number, { pid }: Peer): void {
    const options = this.#options
    const { poller, log, timeoutMs = 5000 } = options
    const connection = new Connection(socket, {
      poller,
      log: log.with({ pid }),
      timeoutMs,
      snapshot: () => options.snapshot(),
      onServed: (uid) => options.onServed?.(uid),
      onHello: () => {
        endAll(this.#in('ready').slice(0, -maxReady), `more than ${maxReady} ztunnels are connected`)
        options.onConnections?.(this.connections)
      },
    })
    const ended = connection.run().then(() => {
      this.#all.delete(connection)
      options.onConnections?.(this.connections)
    })
    this.#all.set(connection, ended)
    endAll(this.#in('silent').slice(0, -maxSilent), `more than ${maxSilent} connections say nothing`)
  }
}

function endAll(connections: Iterable<Connection>, why: string): void {
  for (const connection of connections) connection.end(new ZdsError('closed', why))
}
