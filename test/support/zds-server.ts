// SPDX-License-Identifier: Apache-2.0
/** A ZDS server that sends what it is told, also what no agent would: for the tests of ztunnel's side. */
import { closeSync, rmSync } from 'node:fs'
import { libc } from '../../src/linux/libc.ts'
import { acceptConnection, listenSeqpacket, type Packet, receivePacket } from '../../src/linux/unix.ts'
import { koffi } from '../../src/native.ts'
import { waitFor } from './exec.ts'

/** One message, by the fields of zds.proto. */
export const request = {
  add: (uid: string, info: Buffer | undefined = workloadInfo()): Buffer =>
    field(1, field(1, uid), ...(info ? [field(2, info)] : [])),
  del: (uid: string): Buffer => field(2, field(2, uid)),
  snapshotSent: (): Buffer => field(3),
  keep: (uid: string): Buffer => field(5, field(1, uid)),
}

export function workloadInfo(name = 'web-0', namespace = 'shop', serviceAccount = 'web'): Buffer {
  return Buffer.concat([field(1, name), field(2, namespace), field(3, serviceAccount)])
}

/** A length-delimited field. */
export function field(number: number, ...content: readonly (string | Buffer)[]): Buffer {
  const bytes = Buffer.concat(content.map((each) => Buffer.from(each)))
  return Buffer.concat([varint((number << 3) | 2), varint(bytes.length), bytes])
}

function varint(value: number): Buffer {
  const bytes: number[] = []
  for (let rest = value; ; rest >>= 7) {
    bytes.push(rest > 0x7f ? (rest & 0x7f) | 0x80 : rest)
    if (rest <= 0x7f) return Buffer.from(bytes)
  }
}

export class RawZdsServer implements Disposable {
  readonly path: string
  readonly #socket: number
  readonly #connections: RawZdsConnection[] = []

  private constructor(path: string) {
    this.path = path
    this.#socket = listenSeqpacket(path)
  }

  static listen(path: string): RawZdsServer {
    return new RawZdsServer(path)
  }

  /** The next connection, with its hello read. */
  async accept(): Promise<RawZdsConnection> {
    const socket = await waitFor('a ZDS connection', () => acceptConnection(this.#socket))
    const connection = new RawZdsConnection(socket)
    this.#connections.push(connection)
    const hello = await connection.receive()
    if (hello.toString('hex') !== '0801') throw new Error(`hello: ${hello.toString('hex')}`)
    return connection
  }

  [Symbol.dispose](): void {
    for (const connection of this.#connections) connection[Symbol.dispose]()
    closeSync(this.#socket)
    rmSync(this.path, { force: true })
  }
}

class RawZdsConnection implements Disposable {
  readonly #socket: number
  #isClosed = false

  constructor(socket: number) {
    this.#socket = socket
  }

  send(bytes: Buffer, fds: readonly number[] = []): void {
    sendWithFds(this.#socket, bytes, fds)
  }

  /** The next packet; empty when the other side has closed. */
  async receive(): Promise<Buffer> {
    const { bytes } = await waitFor('a ZDS packet', () => this.#poll())
    return bytes
  }

  /** Send, and give the text of the answer, which is empty for an ack. */
  async ask(bytes: Buffer, fds: readonly number[] = []): Promise<string> {
    this.send(bytes, fds)
    return ackError(await this.receive())
  }

  /** Has anything come? */
  hasAnswer(): boolean {
    return this.#poll() !== undefined
  }

  [Symbol.dispose](): void {
    if (!this.#isClosed) closeSync(this.#socket)
    this.#isClosed = true
  }

  #poll(): Packet | undefined {
    return receivePacket(this.#socket, 8192)
  }
}

/** Of a WorkloadResponse: `0a L` and the Ack, which is empty or `0a N` and the text. */
function ackError(response: Buffer): string {
  const ack = content(response)
  return ack.length === 0 ? '' : content(ack).toString()
}

/** Of field 1, which must be all there is. */
function content(bytes: Buffer): Buffer {
  const [start, length] =
    bytes[1] && bytes[1] > 0x7f ? [3, (bytes[1] & 0x7f) | ((bytes[2] ?? 0) << 7)] : [2, bytes[1] ?? -1]
  if (bytes[0] !== 0x0a || start + length !== bytes.length)
    throw new Error(`no ack: ${bytes.toString('hex')}`)
  return bytes.subarray(start)
}

/** sys/socket.h */
const [SOL_SOCKET, SCM_RIGHTS, MSG_NOSIGNAL] = [1, 1, 0x4000]

/** One packet with any number of descriptors: struct msghdr, struct iovec, struct cmsghdr with its data, the payload. */
function sendWithFds(socket: number, payload: Buffer, fds: readonly number[]): void {
  const [iovec, cmsg] = [56, 72]
  const control = fds.length === 0 ? 0 : 16 + 4 * fds.length
  const start = cmsg + control
  const message = Buffer.alloc(start + payload.length)
  const address = BigInt(koffi().address(message))
  const words: readonly [number, bigint][] = [
    [16, address + BigInt(iovec)],
    [24, 1n],
    [32, control === 0 ? 0n : address + BigInt(cmsg)],
    [40, BigInt(control)],
    [iovec, address + BigInt(start)],
    [iovec + 8, BigInt(payload.length)],
  ]
  for (const [offset, value] of words) message.writeBigUInt64LE(value, offset)
  if (control > 0)
    message.set(new Uint8Array(Int32Array.of(control, 0, SOL_SOCKET, SCM_RIGHTS, ...fds).buffer), cmsg)
  payload.copy(message, start)
  if (libc.sendmsg(socket, message, MSG_NOSIGNAL) !== payload.length)
    throw new Error('cannot send the packet')
}
