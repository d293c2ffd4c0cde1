// SPDX-License-Identifier: Apache-2.0
import { closeSync, writeSync } from 'node:fs'
import { checkErrno } from '../native.ts'
import { libc, SOCK_CLOEXEC } from './libc.ts'

/** sys/epoll.h, sys/eventfd.h */
const EPOLLIN = 1
const EPOLL_CTL_ADD = 1
const EPOLL_CTL_DEL = 2
const EFD_NONBLOCK = 0o4000
/** EPOLL_CLOEXEC and EFD_CLOEXEC have the value of SOCK_CLOEXEC. */
const CLOEXEC = SOCK_CLOEXEC
/** struct epoll_event { u32 events; u64 data }: packed on x86_64 alone. */
const event = process.arch === 'x64' ? { bytes: 12, data: 4 } : { bytes: 16, data: 8 }
const maxEvents = 64

interface Watch {
  readonly id: number
  readonly onReadable: () => void
}

/**
 * Tells when descriptors of kinds that Node does not know are readable, or closed by their peer; again and again until
 * they are read empty. It waits in one of libuv's threads (four, unless UV_THREADPOOL_SIZE says otherwise): have one only.
 */
export class Poller implements Disposable {
  readonly #epoll = checkErrno('open an epoll', libc.epoll_create1(CLOEXEC))
  readonly #wake = checkErrno('open an eventfd', libc.eventfd(0, EFD_NONBLOCK | CLOEXEC))
  readonly #events = Buffer.alloc(event.bytes * maxEvents)
  readonly #watches = new Map<number, Watch>()
  #lastId = 0
  #disposed = false

  constructor() {
    this.add(this.#wake, () => {})
    // process.exit() waits for libuv's threads.
    process.once('exit', this.#end)
    void this.#loop()
  }

  /** The descriptor stays the caller's, and must be non-blocking. What `onReadable` throws becomes an uncaught exception. */
  add(fd: number, onReadable: () => void): void {
    const id = ++this.#lastId
    const watched = Buffer.alloc(event.bytes)
    watched.writeUInt32LE(EPOLLIN, 0)
    watched.writeInt32LE(fd, event.data)
    watched.writeUInt32LE(id, event.data + 4)
    checkErrno('watch a descriptor', libc.epoll_ctl(this.#epoll, EPOLL_CTL_ADD, fd, watched))
    this.#watches.set(fd, { id, onReadable })
  }

  /** Before it is closed. `onReadable` is not called any more. */
  remove(fd: number): void {
    if (!this.#watches.delete(fd)) return
    checkErrno('forget a descriptor', libc.epoll_ctl(this.#epoll, EPOLL_CTL_DEL, fd, null))
  }

  /** No handler is called after this; the poller's own descriptors are closed a moment later. */
  [Symbol.dispose](): void {
    if (this.#disposed) return
    this.#disposed = true
    this.#watches.clear()
    process.off('exit', this.#end)
    this.#end()
  }

  readonly #end = (): void => {
    this.#disposed = true
    const one = Buffer.alloc(8)
    one.writeBigUInt64LE(1n)
    writeSync(this.#wake, one)
  }

  async #loop(): Promise<void> {
    while (!this.#disposed) {
      const count = await libc.epoll_wait(this.#epoll, this.#events, maxEvents, -1)
      // Less than none: a signal came.
      for (let i = 0; i < count; i++) this.#dispatch(i * event.bytes + event.data)
    }
    closeSync(this.#wake)
    closeSync(this.#epoll)
  }

  /** A handler that ran before this one may have removed the descriptor, and its number may be another's by now. */
  #dispatch(data: number): void {
    const watch = this.#watches.get(this.#events.readInt32LE(data))
    if (watch?.id !== this.#events.readUInt32LE(data + 4)) return
    try {
      watch.onReadable()
    } catch (err) {
      queueMicrotask(() => {
        throw err
      })
    }
  }
}
