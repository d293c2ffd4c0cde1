// SPDX-License-Identifier: Apache-2.0
/** ztunnel's end of ZDS, packet by packet, in the process of the server that it talks to. */
import { closeSync, fstatSync } from 'node:fs'
import { fromBinary } from '@bufbuild/protobuf'
import type { NetnsIdentity } from '../../src/linux/netns.ts'
import type { Poller } from '../../src/linux/poller.ts'
import { connectSeqpacket, receivePacket, sendPacket, setReceiveTimeout } from '../../src/linux/unix.ts'
import { WorkloadRequestSchema } from '../../src/zds/zds.gen.ts'
import { waitFor } from './exec.ts'

/** `namespace/name/service account` for an Add; the netns of its descriptor. */
export type Told =
  | { readonly add: string; readonly info: string; readonly netns: NetnsIdentity }
  | { readonly keep: string }
  | { readonly del: string }
  | 'snapshot sent'
  | 'end'

export class ZdsClient implements Disposable {
  readonly #socket: number
  readonly #poller: Poller
  readonly #told: Told[] = []
  #isOpen = true
  #isReading = false

  /** Silent until it is told otherwise. */
  constructor(path: string, poller: Poller) {
    this.#socket = connectSeqpacket(path, 2000)
    this.#poller = poller
    // The server is in this process: to wait here would be to wait for oneself.
    setReceiveTimeout(this.#socket, 1)
    this.read()
  }

  /** Connect, say hello, and acknowledge the snapshot, which is given. */
  static async ready(path: string, poller: Poller): Promise<{ client: ZdsClient; snapshot: Told[] }> {
    const client = new ZdsClient(path, poller)
    client.hello()
    return { client, snapshot: await client.snapshot() }
  }

  hello(): void {
    this.send('0801')
  }

  ack(error = ''): void {
    const text = Buffer.from(error)
    const ack = error === '' ? Buffer.alloc(0) : Buffer.from([0x0a, text.length, ...text])
    this.send(Buffer.from([0x0a, ack.length, ...ack]))
  }

  /** Bytes, or hexadecimal. */
  send(bytes: string | Buffer, fd?: number): void {
    sendPacket(this.#socket, typeof bytes === 'string' ? Buffer.from(bytes, 'hex') : bytes, fd)
  }

  /** What has come and was not taken by next(). */
  get waiting(): readonly Told[] {
    return this.#told
  }

  next(): Promise<Told> {
    return waitFor('a packet for the client', () => this.#told.shift(), { everyMs: 1 })
  }

  /** Up to and with SnapshotSent, each acknowledged. */
  async snapshot(): Promise<Told[]> {
    const told: Told[] = []
    while (told.at(-1) !== 'snapshot sent') {
      told.push(await this.next())
      if (told.at(-1) === 'end') throw new Error('the server closed the connection during the snapshot')
      this.ack()
    }
    return told
  }

  read(): void {
    if (this.#isReading || !this.#isOpen) return
    this.#isReading = true
    this.#poller.add(this.#socket, () => this.#read())
  }

  /** What comes stays in the socket from now on. */
  stopReading(): void {
    if (this.#isReading) this.#poller.remove(this.#socket)
    this.#isReading = false
  }

  [Symbol.dispose](): void {
    if (!this.#isOpen) return
    this.stopReading()
    this.#isOpen = false
    closeSync(this.#socket)
  }

  #read(): void {
    const packet = receivePacket(this.#socket, 2048)
    if (packet === undefined) return
    const { bytes, fds } = packet
    if (bytes.length === 0) this.stopReading()
    this.#told.push(bytes.length === 0 ? 'end' : decode(bytes, fds))
    for (const fd of fds) closeSync(fd)
  }
}

/** Throws on what ends ztunnel. */
function decode(bytes: Buffer, fds: readonly number[]): Told {
  if (bytes.length > 1024) throw new Error(`${bytes.length} bytes`)
  const { payload } = fromBinary(WorkloadRequestSchema, bytes)
  if (fds.length !== (payload.case === 'add' ? 1 : 0))
    throw new Error(`${payload.case} with ${fds.length} descriptors`)
  switch (payload.case) {
    case 'add': {
      const { uid, workloadInfo: info } = payload.value
      if (info === undefined) throw new Error('Add without info')
      const { dev, ino } = fstatSync(fds[0] ?? -1, { bigint: true })
      return { add: uid, info: `${info.namespace}/${info.name}/${info.serviceAccount}`, netns: { dev, ino } }
    }
    case 'keep':
      return { keep: payload.value.uid }
    case 'del':
      return { del: payload.value.uid }
    case 'snapshotSent':
      return 'snapshot sent'
    default:
      throw new Error(`unknown message ${bytes.toString('hex')}`)
  }
}
