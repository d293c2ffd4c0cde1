// SPDX-License-Identifier: Apache-2.0
import { closeSync } from 'node:fs'
import type { Poller } from '../linux/poller.ts'
import { type Packet, receivePacket, sendPacket } from '../linux/unix.ts'
import { ZdsError } from './error.ts'
import { decodeAck, decodeHello, maxPacketBytes } from './messages.ts'

export interface ChannelOptions {
  readonly poller: Poller
  /** For each packet that is awaited. */
  readonly timeoutMs: number
  /** Once. `byPeer`: it closed the connection, and did nothing wrong. */
  onEnd(error: ZdsError, byPeer: boolean): void
}

/** The one packet that is awaited. */
interface Awaited {
  readonly timer: NodeJS.Timeout
  /** Throws on a packet of another kind. */
  take(bytes: Buffer): void
  reject(error: ZdsError): void
}

/**
 * Packets to and from one ztunnel, one outstanding at a time: an answer tells not what it answers. So whatever comes unasked,
 * or not in time, ends the connection: the next answer would be taken for another's.
 */
export class Channel {
  readonly #socket: number
  readonly #options: ChannelOptions
  #awaited: Awaited | undefined
  #end: ZdsError | undefined

  /** Takes the socket over, which must not block. */
  constructor(socket: number, options: ChannelOptions) {
    this.#socket = socket
    this.#options = options
    try {
      options.poller.add(socket, () => this.#read())
    } catch (err) {
      closeSync(socket)
      throw err
    }
  }

  get hasEnded(): boolean {
    return this.#end !== undefined
  }

  /** The first packet of a connection. */
  hello(): Promise<void> {
    const hello = this.#await('say hello', decodeHello)
    this.#read()
    return hello
  }

  /** Gives the error text of the answer, empty for success. The descriptor stays the caller's, and has been sent on return. */
  async request(payload: Buffer, fd?: number): Promise<string> {
    // What came before the question is no answer.
    this.#read()
    if (this.#end !== undefined) throw this.#end
    try {
      sendPacket(this.#socket, payload, fd)
    } catch (cause) {
      // EAGAIN, too: the buffer fills only when ztunnel acknowledges what it has not read.
      throw this.end(new ZdsError('closed', 'cannot send to ztunnel', { cause }))
    }
    return this.#await('answer', decodeAck)
  }

  /** Closes the socket. Gives the error with which it ended, which is an earlier one where there is. */
  end(error: ZdsError, byPeer = false): ZdsError {
    if (this.#end !== undefined) return this.#end
    this.#end = error
    this.#options.poller.remove(this.#socket)
    closeSync(this.#socket)
    clearTimeout(this.#awaited?.timer)
    this.#awaited?.reject(error)
    this.#options.onEnd(error, byPeer)
    return error
  }

  #await<T>(what: string, decode: (bytes: Buffer) => T): Promise<T> {
    const { timeoutMs } = this.#options
    return new Promise((resolve, reject) => {
      const late = () => this.end(new ZdsError('timeout', `ztunnel did not ${what} within ${timeoutMs} ms`))
      const take = (bytes: Buffer) => resolve(decode(bytes))
      this.#awaited = { timer: setTimeout(late, timeoutMs), take, reject }
    })
  }

  #read(): void {
    if (this.#end !== undefined) return
    try {
      const packet = receivePacket(this.#socket, maxPacketBytes)
      if (packet !== undefined) this.#take(packet)
    } catch (cause) {
      this.end(new ZdsError('closed', 'ztunnel broke the protocol', { cause }))
    }
  }

  #take({ bytes, fds, truncated }: Packet): void {
    for (const fd of fds) closeSync(fd)
    if (fds.length > 0 || truncated) throw new Error('its packet carries a descriptor, or is too long')
    if (bytes.length === 0) {
      this.end(new ZdsError('closed', 'ztunnel closed the connection'), true)
      return
    }
    const awaited = this.#awaited
    if (awaited === undefined) throw new Error('it sent a packet that nobody asked for')
    awaited.take(bytes)
    clearTimeout(awaited.timer)
    this.#awaited = undefined
  }
}
