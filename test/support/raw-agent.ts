// SPDX-License-Identifier: Apache-2.0
/** An agent that answers the plugin as the test says, right or wrong. */
import { closeSync, rmSync } from 'node:fs'
import type { Poller } from '../../src/linux/poller.ts'
import {
  acceptConnection,
  listenSeqpacket,
  type Packet,
  receivePacket,
  sendPacket,
} from '../../src/linux/unix.ts'

/** Undefined: the connection is closed without an answer. 'hold': it is kept, and nothing is said. */
export type RawAnswer = Buffer | 'hold' | undefined

export class RawAgent implements Disposable {
  readonly #path: string
  readonly #poller: Poller
  readonly #answer: (request: Packet, agent: RawAgent) => RawAnswer
  readonly #open = new Set<number>()
  #server: number

  constructor(path: string, poller: Poller, answer: (request: Packet, agent: RawAgent) => RawAnswer) {
    this.#path = path
    this.#poller = poller
    this.#answer = answer
    this.#server = this.#watch(listenSeqpacket(path), () => this.#accept())
  }

  /** Nobody listens any more; the socket's file stays. */
  stopListening(): void {
    this.#close(this.#server)
  }

  removeSocket(): void {
    rmSync(this.#path, { force: true })
  }

  [Symbol.dispose](): void {
    for (const fd of this.#open) this.#close(fd)
    this.removeSocket()
  }

  #watch(fd: number, onReadable: () => void): number {
    this.#open.add(fd)
    this.#poller.add(fd, onReadable)
    return fd
  }

  #close(fd: number): void {
    if (!this.#open.delete(fd)) return
    this.#poller.remove(fd)
    closeSync(fd)
  }

  #accept(): void {
    const connection = acceptConnection(this.#server)
    if (connection !== undefined) this.#watch(connection, () => this.#serve(connection))
  }

  #serve(connection: number): void {
    const packet = receivePacket(connection, 65_536)
    if (packet === undefined) return
    const answer = packet.bytes.length === 0 ? undefined : this.#answer(packet, this)
    for (const fd of packet.fds) closeSync(fd)
    if (answer === 'hold') return
    if (answer !== undefined) sendPacket(connection, answer)
    this.#close(connection)
  }
}
