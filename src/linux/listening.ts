// SPDX-License-Identifier: Apache-2.0
/** Listening sockets of another process, by copies of its descriptors. Needs CAP_SYS_PTRACE, and Linux 5.6. */
import { closeSync, readdirSync, readlinkSync } from 'node:fs'
import { checkErrno, SystemError } from '../native.ts'
import { AF_INET, libc, SO_NETNS_COOKIE, SOL_SOCKET } from './libc.ts'
import { isAbsent } from './path.ts'

export interface ListeningSocket {
  /** Good for the time of the call that gets it. */
  readonly fd: number
  /** Cookie of its netns. */
  readonly netns: bigint
  readonly port: number
  /** Of the connections that it takes. */
  readonly families: readonly (4 | 6)[]
}

/** asm-generic/unistd.h; these are the same on every architecture. */
const SYS_pidfd_open = 434
const SYS_pidfd_getfd = 438
/** sys/socket.h, netinet/in.h */
const SO_REUSEADDR = 2
const SO_ACCEPTCONN = 30
const SO_PROTOCOL = 38
const IPPROTO_TCP = 6
const IPPROTO_IPV6 = 41
const IPV6_V6ONLY = 26
/** struct sockaddr_in6 */
const addressBytes = 28

/** Calls `visit` for each listening TCP socket; none when the process is gone. EPERM or EACCES without the capability. */
export function visitListeners(pid: number, visit: (socket: ListeningSocket) => void): void {
  const pidfd = unlessGone(() => checkErrno(`open process ${pid}`, libc.syscall(SYS_pidfd_open, pid, 0, 0)))
  if (pidfd === undefined) return
  try {
    for (const number of socketsOf(pid)) visitListener(pid, pidfd, number, visit)
  } finally {
    closeSync(pidfd)
  }
}

/** Let others bind the port that an accepted connection has as its own. Accepted sockets inherit it. */
export function shareAddress(fd: number): void {
  const on = Buffer.from(Int32Array.of(1).buffer)
  checkErrno('set SO_REUSEADDR', libc.setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, on, on.length))
}

/** Descriptors of the process. Only of sockets: to close a copy of another file could do anything. */
function socketsOf(pid: number): number[] {
  const dir = `/proc/${pid}/fd`
  const isSocket = (name: string) =>
    unlessGone(() => readlinkSync(`${dir}/${name}`))?.startsWith('socket:') === true
  return (unlessGone(() => readdirSync(dir)) ?? []).filter(isSocket).map(Number)
}

function visitListener(
  pid: number,
  pidfd: number,
  number: number,
  visit: (socket: ListeningSocket) => void,
): void {
  const fd = unlessGone(() =>
    checkErrno(`get descriptor ${number} of process ${pid}`, libc.syscall(SYS_pidfd_getfd, pidfd, number, 0)),
  )
  if (fd === undefined) return
  try {
    if (intOption(fd, SOL_SOCKET, SO_ACCEPTCONN) === 0) return
    if (intOption(fd, SOL_SOCKET, SO_PROTOCOL) !== IPPROTO_TCP) return
    visit({ fd, netns: option(fd, SOL_SOCKET, SO_NETNS_COOKIE, 8).readBigUInt64LE(0), ...localEnd(fd) })
  } finally {
    closeSync(fd)
  }
}

/** struct sockaddr_in { u16 family; be16 port; u8 addr[4] } or sockaddr_in6 { ...; be32 flow; u8 addr[16]; u32 scope } */
function localEnd(fd: number): Pick<ListeningSocket, 'port' | 'families'> {
  const address = Buffer.alloc(addressBytes)
  checkErrno('read the address of a socket', libc.getsockname(fd, address, Uint32Array.of(addressBytes)))
  const port = address.readUInt16BE(2)
  if (address.readUInt16LE(0) === AF_INET) return { port, families: [4] }
  const bytes = address.subarray(8, 24)
  if (isMapped(bytes)) return { port, families: [4] }
  const takesBoth = bytes.every((byte) => byte === 0) && intOption(fd, IPPROTO_IPV6, IPV6_V6ONLY) === 0
  return { port, families: takesBoth ? [4, 6] : [6] }
}

/** ::ffff:0:0/96 */
function isMapped(bytes: Buffer): boolean {
  return bytes.subarray(0, 12).equals(Buffer.from('00000000000000000000ffff', 'hex'))
}

function intOption(fd: number, level: number, name: number): number {
  return option(fd, level, name, 4).readInt32LE(0)
}

function option(fd: number, level: number, name: number, bytes: number): Buffer {
  const value = Buffer.alloc(bytes)
  const ret = libc.getsockopt(fd, level, name, value, Uint32Array.of(bytes))
  checkErrno(`read option ${level}/${name} of a socket`, ret)
  return value
}

/** Undefined when the process or its descriptor is gone. */
function unlessGone<T>(fn: () => T): T | undefined {
  try {
    return fn()
  } catch (err) {
    const isGone = err instanceof SystemError ? ['ESRCH', 'EBADF'].includes(err.code) : isAbsent(err)
    if (isGone) return undefined
    throw err
  }
}
