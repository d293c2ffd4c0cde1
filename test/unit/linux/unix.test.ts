// SPDX-License-Identifier: Apache-2.0
import {
  closeSync,
  existsSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import {
  acceptConnection,
  connectSeqpacket,
  listenSeqpacket,
  peerOf,
  receivePacket,
  sendPacket,
  setReceiveTimeout,
} from '../../../src/linux/unix.ts'
import { run, tryRun } from '../../support/exec.ts'

let dir: string
let path: string
let open: number[]

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'unix-'))
  path = join(dir, 'socket')
  open = []
})
afterEach(() => {
  for (const fd of open) closeSync(fd)
  rmSync(dir, { recursive: true })
})

function mine(fd: number): number {
  open.push(fd)
  return fd
}

function close(fd: number): void {
  open.splice(open.indexOf(fd), 1)
  closeSync(fd)
}

interface Ends {
  readonly server: number
  /** Blocking, time-out 2 s. */
  readonly client: number
  /** Non-blocking. */
  readonly accepted: number
}

function connected(): Ends {
  const server = mine(listenSeqpacket(path))
  const client = mine(connectSeqpacket(path, 2000))
  return { server, client, accepted: mine(acceptConnection(server) ?? -1) }
}

const openDescriptors = () => readdirSync('/proc/self/fd').length

function flagsOf(fd: number): number {
  const [, flags = ''] = /^flags:\s+(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')) ?? []
  return Number.parseInt(flags, 8)
}

const O_NONBLOCK = 0o4000
const O_CLOEXEC = 0o2000000

/** In python: what this module itself cannot send. */
async function sendFromPython(statements: string): Promise<void> {
  const code = ['import array, os, socket, sys', `s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)`]
  await run('python3', ['-c', [...code, 's.connect(sys.argv[1])', statements].join('\n'), path])
}

/** What python sent before it ended. */
async function received(statements: string) {
  const server = mine(listenSeqpacket(path))
  await sendFromPython(statements)
  return mine(acceptConnection(server) ?? -1)
}

test('packets keep their borders, in both directions', () => {
  const { client, accepted } = connected()
  sendPacket(client, Buffer.from('one'))
  sendPacket(client, Buffer.from('two'))
  expect(receivePacket(accepted, 1024)).toEqual({ bytes: Buffer.from('one'), fds: [], truncated: false })
  expect(receivePacket(accepted, 1024)?.bytes.toString()).toBe('two')
  expect(receivePacket(accepted, 1024)).toBeUndefined()
  sendPacket(accepted, Buffer.from('three'))
  expect(receivePacket(client, 1024)?.bytes.toString()).toBe('three')
})

test('a descriptor arrives as another one of the same file; the sender keeps its own', () => {
  const { client, accepted } = connected()
  const file = mine(openSync('/proc/self/ns/net', 'r'))
  sendPacket(client, Buffer.from('with'), file)
  const { bytes, fds, truncated } = receivePacket(accepted, 1024) ?? expect.fail('nothing came')
  const [fd = -1] = fds.map(mine)
  expect({ text: bytes.toString(), count: fds.length, truncated }).toEqual({
    text: 'with',
    count: 1,
    truncated: false,
  })
  expect(fd).not.toBe(file)
  expect(fstatSync(fd, { bigint: true }).ino).toBe(fstatSync(file, { bigint: true }).ino)
  expect(flagsOf(fd) & O_CLOEXEC).toBe(O_CLOEXEC)
})

test('all sockets are closed by exec; those of a server do not block', () => {
  const { server, client, accepted } = connected()
  expect([server, client, accepted].map((fd) => flagsOf(fd) & (O_CLOEXEC | O_NONBLOCK))).toEqual([
    O_CLOEXEC | O_NONBLOCK,
    O_CLOEXEC,
    O_CLOEXEC | O_NONBLOCK,
  ])
  expect(acceptConnection(server)).toBeUndefined()
})

test('a longer packet is cut and says so; the next one is whole', () => {
  const { client, accepted } = connected()
  sendPacket(client, Buffer.alloc(11, 'a'))
  sendPacket(client, Buffer.alloc(10, 'b'))
  expect(receivePacket(accepted, 10)).toMatchObject({ bytes: Buffer.alloc(10, 'a'), truncated: true })
  expect(receivePacket(accepted, 10)).toMatchObject({ bytes: Buffer.alloc(10, 'b'), truncated: false })
})

test('a peer that has closed shows as an empty packet, after all that it sent', () => {
  const { client, accepted } = connected()
  sendPacket(client, Buffer.from('last'))
  close(client)
  expect(receivePacket(accepted, 10)?.bytes.toString()).toBe('last')
  expect(receivePacket(accepted, 10)).toEqual({ bytes: Buffer.alloc(0), fds: [], truncated: false })
  expect(() => sendPacket(accepted, Buffer.from('x'))).toThrow(expect.objectContaining({ code: 'EPIPE' }))
})

test('a peer that has closed without reading is no error either', () => {
  const { client, accepted } = connected()
  sendPacket(accepted, Buffer.from('unread'))
  close(client)
  expect(receivePacket(accepted, 10)).toEqual({ bytes: Buffer.alloc(0), fds: [], truncated: false })
})

const manyFds = (count: number, bytes = "b'x'") =>
  `s.sendmsg([${bytes}], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0] * ${count}))])`

test.for([
  { sent: 2, expected: 2, truncated: false },
  { sent: 4, expected: 4, truncated: false },
  { sent: 5, expected: 4, truncated: true },
  { sent: 253, expected: 4, truncated: true },
])('$sent descriptors in one packet: none is lost sight of', async ({ sent, expected, truncated }) => {
  const accepted = await received(manyFds(sent))
  const before = openDescriptors()
  const packet = receivePacket(accepted, 10) ?? expect.fail('nothing came')
  expect(openDescriptors()).toBe(before + expected)
  expect({ count: packet.fds.length, truncated: packet.truncated }).toEqual({ count: expected, truncated })
  packet.fds.forEach(closeSync)
  expect(openDescriptors()).toBe(before)
})

test.for([
  ['in an empty packet', manyFds(1, "b''"), false],
  ['in a cut packet', manyFds(1, "b'x' * 11"), true],
] as const)('a descriptor %s is given to the caller, too', async ([, statement, truncated]) => {
  const accepted = await received(statement)
  const before = openDescriptors()
  const packet = receivePacket(accepted, 10) ?? expect.fail('nothing came')
  expect(packet.truncated).toBe(truncated)
  expect(packet.fds).toHaveLength(1)
  packet.fds.forEach(closeSync)
  expect(openDescriptors()).toBe(before)
})

test('descriptors of several pieces of control data arrive', async () => {
  const piece = "(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0]))"
  const accepted = await received(`s.sendmsg([b'x'], [${piece}, ${piece}])`)
  const before = openDescriptors()
  const packet = receivePacket(accepted, 10) ?? expect.fail('nothing came')
  expect(openDescriptors()).toBe(before + packet.fds.length)
  expect(packet.fds).toHaveLength(2)
  packet.fds.forEach(closeSync)
})

test('a packet that is never read takes its descriptors with it', () => {
  const { client, accepted } = connected()
  const file = mine(openSync('/dev/null', 'r'))
  const before = openDescriptors()
  for (let i = 0; i < 5; i++) sendPacket(client, Buffer.from('x'), file)
  close(accepted)
  expect(openDescriptors()).toBe(before - 1)
})

test('sending to a peer that does not read: EAGAIN where it does not block', () => {
  const { accepted } = connected()
  expect(() => {
    for (;;) sendPacket(accepted, Buffer.alloc(1024))
  }).toThrow(expect.objectContaining({ name: 'SystemError', code: 'EAGAIN' }))
})

test('a packet above the size of the send buffer is EMSGSIZE', () => {
  const { client } = connected()
  expect(() => sendPacket(client, Buffer.alloc(8 << 20))).toThrow(
    expect.objectContaining({ code: 'EMSGSIZE' }),
  )
})

test('a descriptor that is not open is EBADF', () => {
  const { client } = connected()
  expect(() => sendPacket(client, Buffer.from('x'), 999_999)).toThrow(
    expect.objectContaining({ code: 'EBADF' }),
  )
})

test('a connecting socket waits no longer than it was told', () => {
  mine(listenSeqpacket(path))
  const client = mine(connectSeqpacket(path, 10))
  expect(receivePacket(client, 10)).toBeUndefined()
  setReceiveTimeout(client, 1)
  expect(receivePacket(client, 10)).toBeUndefined()
  expect(() => {
    for (;;) sendPacket(client, Buffer.alloc(1024))
  }).toThrow(expect.objectContaining({ code: 'EAGAIN' }))
})

test('connecting to a full server takes no longer than it was told', () => {
  mine(listenSeqpacket(path, { backlog: 0 }))
  mine(connectSeqpacket(path, 10))
  expect(() => connectSeqpacket(path, 10)).toThrow(expect.objectContaining({ code: 'EAGAIN' }))
})

test('the peer is the process that connected', () => {
  const { accepted } = connected()
  expect(peerOf(accepted)).toEqual({
    pid: process.pid,
    uid: process.getuid?.(),
    gid: process.getgid?.(),
  })
})

test.skipIf(process.getuid?.() !== 0)('a peer of another user has its uid and gid', async () => {
  const server = mine(listenSeqpacket(path))
  await tryRun('chmod', ['777', dir, path])
  await run('setpriv', [
    ...['--reuid=1234', '--regid=1235', '--clear-groups', '/usr/bin/python3', '-c'],
    `import socket, sys; socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect(sys.argv[1])`,
    path,
  ])
  expect(peerOf(mine(acceptConnection(server) ?? -1))).toMatchObject({ uid: 1234, gid: 1235 })
})

test('the socket file is the owner’s alone, whatever the umask is', () => {
  const before = process.umask(0)
  try {
    mine(listenSeqpacket(path))
    expect(statSync(path).mode & 0o777).toBe(0o600)
    expect(process.umask(0)).toBe(0)
  } finally {
    process.umask(before)
  }
})

test('a stale socket is replaced', () => {
  close(mine(listenSeqpacket(path)))
  expect(() => connectSeqpacket(path, 100)).toThrow(expect.objectContaining({ code: 'ECONNREFUSED' }))
  mine(listenSeqpacket(path))
  mine(connectSeqpacket(path, 100))
})

test('another file in its place is left alone', () => {
  writeFileSync(path, 'mine')
  expect(() => listenSeqpacket(path)).toThrow(expect.objectContaining({ code: 'EADDRINUSE' }))
  expect(readFileSync(path, 'utf8')).toBe('mine')
})

test('what fails leaves no descriptor behind', () => {
  const before = openDescriptors()
  const long = `/${'x'.repeat(107)}`
  expect(() => connectSeqpacket(join(dir, 'absent'), 100)).toThrow(
    expect.objectContaining({ code: 'ENOENT' }),
  )
  expect(() => listenSeqpacket(join(dir, 'absent/socket'))).toThrow(
    expect.objectContaining({ code: 'ENOENT' }),
  )
  expect(() => listenSeqpacket(long)).toThrow(expect.objectContaining({ code: 'ENAMETOOLONG' }))
  expect(openDescriptors()).toBe(before)
})

test('a path of 107 bytes is still good', () => {
  const long = `${dir}/${'x'.repeat(107 - dir.length - 1)}`
  mine(listenSeqpacket(long))
  expect(existsSync(long)).toBe(true)
  mine(connectSeqpacket(long, 100))
})
