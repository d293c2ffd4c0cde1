// SPDX-License-Identifier: Apache-2.0
import type { Netns } from '../linux/netns.ts'
import type { Poller } from '../linux/poller.ts'
import type { Logger } from '../log.ts'
import { Channel } from './channel.ts'
import { ZdsError } from './error.ts'
import { encodeAdd, encodeDel, encodeKeep, encodeSnapshotSent, type WorkloadInfo } from './messages.ts'

/** A pod that ztunnel serves, or is to serve. */
export interface Workload {
  /** Of the pod. */
  readonly uid: string
  readonly info: WorkloadInfo
  /** Undefined: not known. A ztunnel that has it keeps it. */
  readonly netns: Netns | undefined
}

export interface ConnectionOptions {
  readonly poller: Poller
  readonly log: Logger
  readonly timeoutMs: number
  snapshot(): readonly Workload[]
  onHello(): void
  /** An Add was acknowledged. */
  onServed(uid: string): void
}

/** What is to be told to ztunnel, with a netns of its own. */
interface Message {
  readonly uid: string
  readonly payload: Buffer
  readonly netns?: Netns
}

interface Update {
  readonly message: Message
  resolve(): void
  reject(error: unknown): void
}

/** More than plugins and changes of pods can wait for at the same time. */
const maxQueued = 500

/** One ztunnel: its hello, a snapshot of all pods, then what changes. */
export class Connection {
  readonly #options: ConnectionOptions
  readonly #channel: Channel
  readonly #queue: Update[] = []
  /** Something is in the queue, or the connection has ended. */
  #wake = (): void => {}
  #saidHello = false

  /** Takes the socket over. */
  constructor(socket: number, options: ConnectionOptions) {
    const { poller, timeoutMs } = options
    this.#options = options
    this.#channel = new Channel(socket, {
      poller,
      timeoutMs,
      onEnd: (error, byPeer) => {
        this.#logEnd(error, byPeer)
        this.#wake()
      },
    })
  }

  /** `silent`: has not said hello. */
  get state(): 'silent' | 'ready' | 'ended' {
    if (this.#channel.hasEnded) return 'ended'
    return this.#saidHello ? 'ready' : 'silent'
  }

  /** Once. Resolves after the connection's end, when all that was asked of it is settled. Never rejects. */
  async run(): Promise<void> {
    try {
      await this.#channel.hello()
      this.#saidHello = true
      this.#options.log.info('ztunnel connected')
      this.#options.onHello()
      await this.#sendSnapshot()
    } catch (cause) {
      this.#channel.end(new ZdsError('closed', 'cannot serve ztunnel', { cause }))
    }
    await this.#sendUpdates()
  }

  /** Resolves when ztunnel has acknowledged it. Throws ZdsError. */
  add(workload: Workload & { readonly netns: Netns }): Promise<void> {
    return this.#enqueue(addMessage(workload))
  }

  /** Resolves when ztunnel has acknowledged it. Throws ZdsError. */
  del(uid: string): Promise<void> {
    return this.#enqueue({ uid, payload: encodeDel(uid) })
  }

  end(error: ZdsError): void {
    this.#channel.end(error)
  }

  async #sendSnapshot(): Promise<void> {
    const { log } = this.#options
    const start = performance.now()
    const messages = this.#takeSnapshot()
    for (const message of [...messages, { uid: '', payload: encodeSnapshotSent() }]) {
      await this.#deliver(message).catch((err) => this.#logRefusal(message.uid, err))
    }
    if (this.#channel.hasEnded) return
    log.info('snapshot sent', { count: messages.length, ms: Math.round(performance.now() - start) })
  }

  /** Each with a descriptor of its own: the caller may close its while others are being sent. */
  #takeSnapshot(): Message[] {
    const messages: Message[] = []
    try {
      for (const workload of this.#options.snapshot()) messages.push(...this.#snapshotMessage(workload))
      return messages
    } catch (err) {
      for (const { netns } of messages) netns?.[Symbol.dispose]()
      throw err
    }
  }

  /** Without one that cannot be told: the others are not to suffer. */
  #snapshotMessage({ uid, info, netns }: Workload): Message[] {
    try {
      return [netns === undefined ? { uid, payload: encodeKeep(uid) } : addMessage({ uid, info, netns })]
    } catch (err) {
      if (!(err instanceof ZdsError)) throw err
      this.#logRefusal(uid, err)
      return []
    }
  }

  /** What fails because the connection ended is told once, by its end. */
  #logRefusal(uid: string, error: ZdsError): void {
    if (error.reason !== 'refused') return
    this.#options.log.warn('ztunnel refused a message of the snapshot', { uid, error })
  }

  #enqueue(message: Message): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ message, resolve, reject })
      if (this.#queue.length > maxQueued) {
        this.#channel.end(new ZdsError('closed', `ztunnel is more than ${maxQueued} messages behind`))
      }
      this.#wake()
    })
  }

  async #sendUpdates(): Promise<void> {
    for (;;) {
      const update = this.#queue.shift()
      if (update !== undefined) {
        await this.#deliver(update.message).then(update.resolve, update.reject)
      } else if (this.#channel.hasEnded) {
        return
      } else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
      }
    }
  }

  /** Every message ends here once, also those left over when the connection ends: its descriptor is closed. */
  async #deliver({ uid, payload, netns }: Message): Promise<void> {
    const answer = this.#channel.request(payload, netns?.fd)
    netns?.[Symbol.dispose]()
    const error = await answer
    if (error !== '') throw new ZdsError('refused', `ztunnel refused: ${error}`)
    // On its own: its failure is not ours.
    if (netns !== undefined) queueMicrotask(() => this.#options.onServed(uid))
  }

  #logEnd(error: ZdsError, byPeer: boolean): void {
    const { log } = this.#options
    if (error.reason === 'timeout') log.warn('ztunnel timed out', { error })
    else if (!this.#saidHello) log.debug('connection ended before its hello', { error })
    else if (byPeer) log.info('ztunnel disconnected')
    else log.warn('connection to ztunnel closed', { error })
  }
}

/** Encoded first: that may throw, and a descriptor would be left over. */
function addMessage({ uid, info, netns }: Workload & { readonly netns: Netns }): Message {
  return { uid, payload: encodeAdd(uid, info), netns: netns.duplicate() }
}
