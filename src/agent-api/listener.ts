// SPDX-License-Identifier: Apache-2.0
import { closeSync, lstatSync, rmSync } from 'node:fs'
import type { Poller } from '../linux/poller.ts'
import {
  acceptConnection,
  listenSeqpacket,
  type Packet,
  peerOf,
  receivePacket,
  sendPacket,
} from '../linux/unix.ts'
import type { Logger } from '../log.ts'
import { maxPacketBytes } from './protocol.ts'

export interface ListenerOptions {
  /** Of the socket. */
  readonly path: string
  readonly poller: Poller
  readonly log: Logger
  /** How many are served at once; more wait in the socket's backlog. Default 256: a node has about as many pods. */
  readonly maxConnections?: number
  /** A connection that says nothing for so long is closed. Default 5000. */
  readonly silenceMs?: number
  /** How long stopping waits for answers. Default 10,000. */
  readonly stopMs?: number
}

interface Connection {
  readonly fd: number
  /** Runs while nothing was said. */
  readonly timer: NodeJS.Timeout
  /** Settles when all is said. Never rejects. */
  answered?: Promise<void>
}

const backlog = 1024
/** Accepted in one go; then others have their turn. */
const acceptsAtOnce = 64
const pauseMs = 1_000

/** A socket for root's processes. Each connection says one packet and is answered with one, independent of the others. */
export class Listener {
  readonly #options: ListenerOptions
  readonly #answer: (packet: Packet) => Promise<Buffer>
  readonly #socket: number
  readonly #ino: bigint | undefined
  readonly #connections = new Set<Connection>()
  /** Those that have said nothing yet, the oldest first. */
  readonly #silent = new Set<Connection>()
  #pause: NodeJS.Timeout | undefined
  #stopped: Promise<void> | undefined

  /** `answer` owns the descriptors of its packet, and never rejects. */
  constructor(options: ListenerOptions, answer: (packet: Packet) => Promise<Buffer>) {
    const { path, poller } = options
    this.#options = options
    this.#answer = answer
    this.#socket = listenSeqpacket(path, { backlog })
    this.#ino = inode(path)
    poller.add(this.#socket, () => this.#accept())
  }

  get connections(): number {
    return this.#connections.size
  }

  /** Nobody new is served; who has asked is answered, if it does not take too long. Idempotent. */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop()
    return this.#stopped
  }

  async #stop(): Promise<void> {
    const { path, poller, stopMs = 10_000 } = this.#options
    clearTimeout(this.#pause)
    this.#pause = undefined
    poller.remove(this.#socket)
    closeSync(this.#socket)
    // A newer agent may have its own there by now.
    if (inode(path) === this.#ino) rmSync(path, { force: true })
    for (const connection of this.#silent) this.#close(connection)
    const { promise: late, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, stopMs)
    await Promise.race([Promise.all([...this.#connections].map(({ answered }) => answered)), late])
    clearTimeout(timer)
    for (const connection of this.#connections) this.#close(connection)
  }

  #accept(): void {
    try {
      for (let i = 0; i < acceptsAtOnce && this.#pause === undefined; i++) {
        const fd = acceptConnection(this.#socket)
        if (fd === undefined) return
        this.#admit(fd)
        // Who says nothing makes room for who does: the plugin asks as soon as it is connected.
        if (this.#connections.size > this.#max) this.#dropOldestSilent()
        if (this.#isFull()) this.#pauseAccepting()
      }
    } catch (error) {
      this.#options.log.error('agent socket: cannot accept a connection', { error })
      this.#dropOldestSilent()
      this.#pauseAccepting()
    }
  }

  get #max(): number {
    return this.#options.maxConnections ?? 256
  }

  #isFull(): boolean {
    return this.#connections.size >= this.#max && this.#silent.size === 0
  }

  #dropOldestSilent(): void {
    const [oldest] = this.#silent
    if (oldest !== undefined) this.#close(oldest)
  }

  /** Meanwhile the backlog fills. */
  #pauseAccepting(): void {
    this.#options.poller.remove(this.#socket)
    clearTimeout(this.#pause)
    this.#pause = setTimeout(() => {
      if (this.#isFull()) this.#pauseAccepting()
      else this.#resumeAccepting()
    }, pauseMs)
  }

  #resumeAccepting(): void {
    if (this.#pause === undefined) return
    clearTimeout(this.#pause)
    this.#pause = undefined
    this.#options.poller.add(this.#socket, () => this.#accept())
  }

  #admit(fd: number): void {
    const { poller, log, silenceMs = 5_000 } = this.#options
    const connection = { fd, timer: setTimeout(() => this.#close(connection), silenceMs) }
    this.#connections.add(connection)
    this.#silent.add(connection)
    try {
      const { pid, uid } = peerOf(fd)
      if (uid === 0) {
        poller.add(fd, () => this.#read(connection))
        this.#read(connection)
      } else {
        log.warn('agent socket: refused a process that is not root', { pid, uid })
        this.#close(connection)
      }
    } catch (err) {
      this.#close(connection)
      throw err
    }
  }

  #read(connection: Connection): void {
    const { log } = this.#options
    try {
      const packet = receivePacket(connection.fd, maxPacketBytes)
      if (packet === undefined) return
      this.#hush(connection)
      connection.answered = this.#serve(connection, packet)
    } catch (error) {
      log.warn('agent socket: cannot read a request', { error })
      this.#close(connection)
    }
  }

  async #serve(connection: Connection, packet: Packet): Promise<void> {
    try {
      if (packet.bytes.length === 0) return void packet.fds.map((fd) => closeSync(fd))
      const answer = await this.#answer(packet)
      // Stopping may have been faster.
      if (this.#connections.has(connection)) sendPacket(connection.fd, answer)
    } catch (error) {
      this.#options.log.warn('agent socket: the answer came too late for the plugin', { error })
    } finally {
      this.#close(connection)
    }
  }

  /** It is not listened to any more. */
  #hush(connection: Connection): void {
    clearTimeout(connection.timer)
    this.#silent.delete(connection)
    this.#options.poller.remove(connection.fd)
  }

  #close(connection: Connection): void {
    if (!this.#connections.delete(connection)) return
    this.#hush(connection)
    closeSync(connection.fd)
    this.#resumeAccepting()
  }
}

function inode(path: string): bigint | undefined {
  return lstatSync(path, { bigint: true, throwIfNoEntry: false })?.ino
}
