// SPDX-License-Identifier: Apache-2.0
import { closeSync, fstatSync, openSync, statfsSync, statSync } from 'node:fs'
import { checkErrno, EINVAL, ENOENT, SystemError } from '../native.ts'
import { AF_INET, LOCK_EX, libc, SO_NETNS_COOKIE, SOCK_CLOEXEC, SOL_SOCKET } from './libc.ts'
import { type InterfaceAddress, openRouteSocket, readAddresses } from './rtnetlink.ts'

/** sched.h */
const CLONE_NEWNET = 0x40000000
/** linux/magic.h */
const NSFS_MAGIC = 0x6e736673
/** linux/nsfs.h: which kind of namespace, as a CLONE_ constant. */
const NS_GET_NSTYPE = 0xb703
/** sys/socket.h */
const SOCK_DGRAM = 2

/** What tells two network namespaces apart while both exist; a freed inode is used again. */
export interface NetnsIdentity {
  readonly dev: bigint
  readonly ino: bigint
}

/** An open network namespace: kept alive until it is disposed, so declare it with `using`. */
export class Netns implements Disposable {
  readonly path: string
  readonly fd: number

  private constructor(path: string, fd: number) {
    this.path = path
    this.fd = fd
  }

  /** Throws SystemError: ENOENT when nothing is there, EINVAL when it is no network namespace. */
  static open(path: string): Netns {
    return Netns.#take(openNamespace(path), path)
  }

  /** Takes the descriptor over; `name` is for messages. Throws SystemError EINVAL when it is no network namespace, and closes it. */
  static fromFd(fd: number, name: string): Netns {
    if (isNamespace(fdPath(fd))) return Netns.#take(fd, name)
    closeSync(fd)
    throw notNetns(name)
  }

  /** A namespace of another kind is on the same file system. */
  static #take(fd: number, path: string): Netns {
    if (libc.ioctl(fd, NS_GET_NSTYPE) === CLONE_NEWNET) return new Netns(path, fd)
    closeSync(fd)
    throw notNetns(path)
  }

  /** Another open file of the same netns, with a lock of its own. */
  duplicate(): Netns {
    return new Netns(this.path, openSync(fdPath(this.fd), 'r'))
  }

  get identity(): NetnsIdentity {
    const { dev, ino } = fstatSync(this.fd, { bigint: true })
    return { dev, ino }
  }

  /**
   * Run `fn` in this netns. It must be synchronous and do the least: an asynchronous file system call started inside
   * would create libuv's threads in this netns, and all later work of theirs, DNS too, would run here.
   */
  run<T>(fn: () => T): T {
    const home = openSync('/proc/thread-self/ns/net', 'r')
    try {
      checkErrno(`enter network namespace ${this.path}`, libc.setns(this.fd, CLONE_NEWNET))
      try {
        return requireSync(fn())
      } finally {
        // A thread stuck in a pod's netns would misroute everything after this: die instead.
        if (libc.setns(home, CLONE_NEWNET) < 0) process.abort()
      }
    } finally {
      closeSync(home)
    }
  }

  /** The kernel's id of the netns, never used again. Needs Linux 5.14: ENOPROTOOPT before. */
  cookie(): bigint {
    const socket = this.run(() =>
      checkErrno('open a socket', libc.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)),
    )
    try {
      const value = Buffer.alloc(8)
      const length = Uint32Array.of(value.length)
      const ret = libc.getsockopt(socket, SOL_SOCKET, SO_NETNS_COOKIE, value, length)
      checkErrno(`read the cookie of network namespace ${this.path}`, ret)
      return value.readBigUInt64LE(0)
    } finally {
      closeSync(socket)
    }
  }

  /** Every address of every interface, up or down. */
  addresses(): InterfaceAddress[] {
    // A socket stays in the netns in which it was made.
    const socket = this.run(openRouteSocket)
    try {
      return readAddresses(socket)
    } finally {
      closeSync(socket)
    }
  }

  /** Wait until no other Netns of this netns, in any process, holds the lock. Disposing releases it. */
  lock(): void {
    checkErrno(`lock network namespace ${this.path}`, libc.flock(this.fd, LOCK_EX))
  }

  [Symbol.dispose](): void {
    closeSync(this.fd)
  }
}

/** The netns of this thread. */
export function hostNetnsIdentity(): NetnsIdentity {
  const { dev, ino } = statSync('/proc/thread-self/ns/net', { bigint: true })
  return { dev, ino }
}

export function isSameNetns(a: NetnsIdentity, b: NetnsIdentity): boolean {
  return a.dev === b.dev && a.ino === b.ino
}

/** Looked at before it is opened: to open a FIFO would block, to open a device could do anything. */
function openNamespace(path: string): number {
  try {
    if (isNamespace(path)) return openSync(path, 'r')
  } catch (cause) {
    const errno = (cause as NodeJS.ErrnoException).errno ?? -ENOENT
    throw new SystemError(`open network namespace ${path}`, -errno, { cause })
  }
  throw notNetns(path)
}

/** Of any kind. */
function isNamespace(path: string): boolean {
  return statfsSync(path).type === NSFS_MAGIC
}

const fdPath = (fd: number) => `/proc/self/fd/${fd}`

function notNetns(path: string): SystemError {
  return new SystemError(`${path} is not a network namespace`, EINVAL)
}

/** Too late for libuv's threads, but the caller's mistake becomes visible. */
function requireSync<T>(value: T): T {
  if (typeof (value as { then?: unknown } | null | undefined)?.then === 'function') {
    throw new TypeError('the callback of Netns.run() must be synchronous')
  }
  return value
}
