// SPDX-License-Identifier: Apache-2.0
import { closeSync } from 'node:fs'
import type { Poller } from '../linux/poller.ts'
import { acceptConnection, listenSeqpacket, type Peer, peerOf } from '../linux/unix.ts'
import type { Logger } from '../log.ts'
import { RemedyError } from '../remedy.ts'

export interface GateOptions {
  readonly path: string
  readonly poller: Poller
  readonly log: Logger
  /** Throws to refuse. */
  admit(peer: Peer): void
  /** Takes the socket over. Only for those that are admitted. */
  onConnection(socket: number, peer: Peer): void
}

/** 1000 connections per second: no ztunnel waits long, and it is not much work. */
const acceptsAtOnce = 20
const acceptPauseMs = 20
/** After a failure: for want of descriptors, mostly. */
const failurePauseMs = 1000
const backlog = 128
const warnEveryMs = 1000

/**
 * The listening socket. Who connects is looked at at once and refused at once, so that those who are not ztunnel hold no
 * descriptor here and keep no ztunnel waiting: the whole backlog is gone through in a fraction of a second.
 */
export class Gate implements Disposable {
  readonly #options: GateOptions
  readonly #socket: number
  /** Set while nobody is accepted. */
  #pause: NodeJS.Timeout | undefined
  #disposed = false
  #nextWarning = 0
  #unreported = 0

  constructor(options: GateOptions) {
    this.#options = options
    this.#socket = listenSeqpacket(options.path, { backlog })
    this.#open()
  }

  /** The file of the socket stays: by now it may be that of another agent. */
  [Symbol.dispose](): void {
    if (this.#disposed) return
    this.#disposed = true
    clearTimeout(this.#pause)
    this.#options.poller.remove(this.#socket)
    closeSync(this.#socket)
  }

  #open(): void {
    this.#options.poller.add(this.#socket, () => this.#accept())
  }

  #accept(): void {
    try {
      for (let i = 0; i < acceptsAtOnce; i++) {
        const socket = acceptConnection(this.#socket)
        if (socket === undefined) return
        this.#examine(socket)
      }
      this.#close(acceptPauseMs)
    } catch (error) {
      this.#warn('cannot accept connections', { error })
      this.#close(failurePauseMs)
    }
  }

  #close(forMs: number): void {
    if (this.#disposed) return
    this.#options.poller.remove(this.#socket)
    this.#pause = setTimeout(() => this.#open(), forMs)
  }

  #examine(socket: number): void {
    let peer: Peer | undefined
    try {
      peer = peerOf(socket)
      if (peer.uid !== 0) throw new RemedyError('it does not run as root', 'run ztunnel as root')
      this.#options.admit(peer)
    } catch (error) {
      closeSync(socket)
      const remedy = error instanceof RemedyError ? error.remedy : undefined
      this.#warn('connection refused', { ...peer, error, remedy })
      return
    }
    this.#options.onConnection(socket, peer)
  }

  /** Not for each of thousands: that would fill the disk. */
  #warn(message: string, fields: Readonly<Record<string, unknown>>): void {
    const now = performance.now()
    if (now < this.#nextWarning) {
      this.#unreported++
      return
    }
    this.#options.log.warn(message, { ...fields, unreported: this.#unreported })
    this.#nextWarning = now + warnEveryMs
    this.#unreported = 0
  }
}
