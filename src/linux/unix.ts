// SPDX-License-Identifier: Apache-2.0
/** Unix sockets of type SOCK_SEQPACKET, with descriptors (SCM_RIGHTS). Node has none of these. Failures are SystemError. */
import { closeSync, fchmodSync, lstatSync, rmSync } from 'node:fs'
import { checkErrno, koffi, SystemError } from '../native.ts'
import { libc, SOCK_CLOEXEC, SOL_SOCKET } from './libc.ts'

export interface Packet {
  /** Empty: the peer has closed. (An empty packet cannot be told from that.) */
  readonly bytes: Buffer
  /** The receiver's to close, also when `bytes` is empty or `truncated` is set. */
  readonly fds: readonly number[]
  /** Bytes or descriptors are missing. */
  readonly truncated: boolean
}

/** A process as it was when it connected; 0 and 65534 where it has no id in our namespaces. */
export interface Peer {
  readonly pid: number
  readonly uid: number
  readonly gid: number
}

/** sys/socket.h */
const AF_UNIX = 1
const SOCK_SEQPACKET = 5
const SOCK_NONBLOCK = 0o4000
const SO_PEERCRED = 17
const SO_RCVTIMEO = 20
const SO_SNDTIMEO = 21
const SCM_RIGHTS = 1
const MSG_CTRUNC = 0x8
const MSG_TRUNC = 0x20
const MSG_NOSIGNAL = 0x4000
const MSG_CMSG_CLOEXEC = 0x40000000
/** errno.h */
const EINTR = 4
const ENAMETOOLONG = 36
/** sun_path, with its NUL. */
const maxPathBytes = 108

/**
 * One Buffer holds all that the kernel reads or writes, so that nothing is collected before the call returns: struct
 * msghdr { name; namelen; iov; iovlen; control; controllen; flags }, eight bytes each; struct iovec { base; len }; the
 * control data: struct cmsghdr { u64 len; i32 level; i32 type }, i32 descriptors; and the payload.
 */
const at = { iov: 16, iovlen: 24, control: 32, controllen: 40, flags: 48, iovec: 56, cmsg: 72, payload: 104 }
const cmsgHeaderBytes = 16
/** What the control data has room for; the kernel drops those above. */
const maxFds = (at.payload - at.cmsg - cmsgHeaderBytes) / 4

/** Non-blocking, mode 0600. A socket that is left at `path` is replaced; any other file is EADDRINUSE. */
export function listenSeqpacket(path: string, { backlog = 16 }: { backlog?: number } = {}): number {
  const address = addressOf(path)
  return owned(openSocket(SOCK_NONBLOCK), (socket) => {
    if (lstatSync(path, { throwIfNoEntry: false })?.isSocket()) rmSync(path, { force: true })
    // The file gets the mode of the socket, at once: no time in which others may connect, and umask(2) is left alone.
    fchmodSync(socket, 0o600)
    checkErrno(`bind ${path}`, libc.bind(socket, address, address.length))
    checkErrno(`listen at ${path}`, libc.listen(socket, backlog))
  })
}

/** Blocking; connecting, sending and receiving take at most `timeoutMs` each, then fail with EAGAIN. */
export function connectSeqpacket(path: string, timeoutMs: number): number {
  const address = addressOf(path)
  return owned(openSocket(0), (socket) => {
    setTimeLimit(socket, SO_SNDTIMEO, timeoutMs)
    setTimeLimit(socket, SO_RCVTIMEO, timeoutMs)
    uninterrupted(`connect to ${path}`, () => libc.connect(socket, address, address.length))
  })
}

/** Of a blocking socket: receivePacket() gives undefined after it. */
export function setReceiveTimeout(socket: number, timeoutMs: number): void {
  setTimeLimit(socket, SO_RCVTIMEO, timeoutMs)
}

/** The next connection, non-blocking, the caller's to close. Undefined: none is waiting. */
export function acceptConnection(server: number): number | undefined {
  const accept = () => libc.accept4(server, null, null, SOCK_NONBLOCK | SOCK_CLOEXEC)
  return unlessAgain(() => uninterrupted('accept a connection', accept))
}

/** One packet, with a descriptor (which stays the caller's) where given. */
export function sendPacket(socket: number, payload: Buffer, fd?: number): void {
  const control = fd === undefined ? [] : [cmsgHeaderBytes + 4, 0, SOL_SOCKET, SCM_RIGHTS, fd]
  const message = newMessage(payload.length, 4 * control.length)
  message.set(new Uint8Array(Int32Array.from(control).buffer), at.cmsg)
  payload.copy(message, at.payload)
  uninterrupted('send a packet', () => libc.sendmsg(socket, message, MSG_NOSIGNAL))
}

/** Undefined: nothing is there, or came before the time-out. */
export function receivePacket(socket: number, maxBytes: number): Packet | undefined {
  const message = newMessage(maxBytes, cmsgHeaderBytes + 4 * maxFds)
  const length = unlessAgain(() => receive(socket, message))
  if (length === undefined) return undefined
  const flags = message.readInt32LE(at.flags)
  return {
    bytes: message.subarray(at.payload, at.payload + length),
    fds: receivedFds(message),
    truncated: (flags & (MSG_TRUNC | MSG_CTRUNC)) !== 0,
  }
}

function receive(socket: number, message: Buffer): number {
  try {
    return uninterrupted('receive a packet', () => libc.recvmsg(socket, message, MSG_CMSG_CLOEXEC))
  } catch (err) {
    // The peer closed without reading all that we sent.
    if ((err as SystemError).code !== 'ECONNRESET') throw err
    message.writeBigUInt64LE(0n, at.controllen)
    return 0
  }
}

/** All that the kernel put into our table: as many as the length says, which may be more than fit after alignment. */
function receivedFds(message: Buffer): number[] {
  if (message.readBigUInt64LE(at.controllen) < cmsgHeaderBytes) return []
  // Nothing but SCM_RIGHTS comes on a socket for which nothing else was asked for, and all in one piece.
  const length = message.readUInt32LE(at.cmsg)
  const count = (length - cmsgHeaderBytes) / 4
  return Array.from({ length: count }, (_, i) => message.readInt32LE(at.cmsg + cmsgHeaderBytes + 4 * i))
}

function newMessage(payloadBytes: number, controlBytes: number): Buffer {
  const message = Buffer.alloc(at.payload + payloadBytes)
  const address = BigInt(koffi().address(message))
  message.writeBigUInt64LE(address + BigInt(at.iovec), at.iov)
  message.writeBigUInt64LE(1n, at.iovlen)
  message.writeBigUInt64LE(address + BigInt(at.payload), at.iovec)
  message.writeBigUInt64LE(BigInt(payloadBytes), at.iovec + 8)
  message.writeBigUInt64LE(address + BigInt(at.cmsg), at.control)
  message.writeBigUInt64LE(BigInt(controlBytes), at.controllen)
  return message
}

/** The process at the other end, as the kernel knows it. */
export function peerOf(socket: number): Peer {
  const value = Buffer.alloc(12)
  const length = Uint32Array.of(value.length)
  const ret = libc.getsockopt(socket, SOL_SOCKET, SO_PEERCRED, value, length)
  checkErrno('read the credentials of a peer', ret)
  return { pid: value.readInt32LE(0), uid: value.readUInt32LE(4), gid: value.readUInt32LE(8) }
}

function openSocket(flags: number): number {
  const type = SOCK_SEQPACKET | SOCK_CLOEXEC | flags
  return checkErrno('open a unix socket', libc.socket(AF_UNIX, type, 0))
}

/** Closes the socket again when `prepare` fails. */
function owned(socket: number, prepare: (socket: number) => void): number {
  try {
    prepare(socket)
    return socket
  } catch (err) {
    closeSync(socket)
    throw err
  }
}

/** struct sockaddr_un { u16 family; char path[108] } */
function addressOf(path: string): Buffer {
  const bytes = Buffer.from(`${path}\0`)
  if (bytes.length > maxPathBytes) throw new SystemError(`socket path ${path}`, ENAMETOOLONG)
  const family = Buffer.alloc(2)
  family.writeUInt16LE(AF_UNIX)
  return Buffer.concat([family, bytes])
}

/** struct timeval { i64 seconds; i64 microseconds }; zero would mean for ever. */
function setTimeLimit(socket: number, option: number, timeoutMs: number): void {
  const ms = Math.max(1, Math.ceil(timeoutMs))
  const value = Buffer.alloc(16)
  value.writeBigInt64LE(BigInt(Math.floor(ms / 1000)), 0)
  value.writeBigInt64LE(BigInt((ms % 1000) * 1000), 8)
  checkErrno('set a time-out', libc.setsockopt(socket, SOL_SOCKET, option, value, value.length))
}

/** A signal interrupts a socket that has a time-out, whatever its handler asked for. */
function uninterrupted(action: string, call: () => number): number {
  for (;;) {
    const ret = call()
    if (ret >= 0) return ret
    if (koffi().errno() !== EINTR) return checkErrno(action, ret)
  }
}

function unlessAgain<T>(call: () => T): T | undefined {
  try {
    return call()
  } catch (err) {
    if ((err as SystemError).code === 'EAGAIN') return undefined
    throw err
  }
}
