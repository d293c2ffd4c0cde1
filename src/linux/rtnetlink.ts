// SPDX-License-Identifier: Apache-2.0
/** Addresses of a netns by rtnetlink (linux/rtnetlink.h); os.networkInterfaces() hides interfaces that are down. */
import { readSync, writeSync } from 'node:fs'
import { addressText } from '../address.ts'
import { checkErrno, SystemError } from '../native.ts'
import { AF_INET, libc, SOCK_CLOEXEC } from './libc.ts'

export interface InterfaceAddress {
  readonly ifname: string
  readonly ifindex: number
  readonly address: string
  readonly family: 4 | 6
  readonly scope: 'global' | 'link' | 'loopback'
  /** On a loopback interface, whatever the scope is. */
  readonly internal: boolean
}

/** sys/socket.h, linux/netlink.h */
const AF_INET6 = 10
const AF_NETLINK = 16
const SOCK_RAW = 3
const NETLINK_ROUTE = 0
const NLMSG_ERROR = 2
const NLMSG_DONE = 3
const NLM_F_REQUEST = 1
const NLM_F_DUMP_INTR = 0x10
const NLM_F_DUMP = 0x300
/** linux/rtnetlink.h, if_link.h, if_addr.h, if.h */
const RTM_NEWLINK = 16
const RTM_GETLINK = 18
const RTM_NEWADDR = 20
const RTM_GETADDR = 22
const IFLA_IFNAME = 3
const IFA_ADDRESS = 1
const IFA_LOCAL = 2
const IFF_LOOPBACK = 8
const RT_SCOPE_LINK = 253
const RT_SCOPE_HOST = 254

/** Bytes of struct nlmsghdr { u32 len; u16 type; u16 flags; u32 seq; u32 pid }, ifinfomsg and ifaddrmsg. */
const headerBytes = 16
const linkBytes = 16
const addressBytes = 8
/** More than the kernel puts into one datagram of a dump. */
const datagramBytes = 65536
const maxAttempts = 5

/** One message of a dump: its type, and what follows the header. All integers are in the machine's order. */
interface Message {
  readonly type: number
  readonly body: Buffer
}

interface Interface {
  readonly ifname: string
  readonly ifindex: number
  readonly internal: boolean
}

/** The caller owns the descriptor. It speaks for the netns in which this is called. */
export function openRouteSocket(): number {
  return checkErrno('open a netlink socket', libc.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE))
}

export function readAddresses(socket: number): InterfaceAddress[] {
  const links = dump(socket, RTM_GETLINK, linkBytes)
  return parseAddresses([...links, ...dump(socket, RTM_GETADDR, addressBytes)])
}

/** From the messages of both dumps, links first. */
export function parseAddresses(messages: readonly Message[]): InterfaceAddress[] {
  const interfaces = new Map<number, Interface>()
  const addresses: InterfaceAddress[] = []
  for (const { type, body } of messages) {
    if (type === RTM_NEWLINK) interfaces.set(body.readInt32LE(4), parseLink(body))
    if (type === RTM_NEWADDR) addresses.push(...parseAddress(body, interfaces))
  }
  return addresses
}

/** struct ifinfomsg { u8 family; u8 pad; u16 type; i32 index; u32 flags; u32 change } */
function parseLink(body: Buffer): Interface {
  const name = attribute(body.subarray(linkBytes), IFLA_IFNAME)
  return {
    ifname: name?.toString('utf8', 0, name.length - 1) ?? '',
    ifindex: body.readInt32LE(4),
    internal: (body.readUInt32LE(8) & IFF_LOOPBACK) !== 0,
  }
}

/** struct ifaddrmsg { u8 family; u8 prefixlen; u8 flags; u8 scope; u32 index } */
function parseAddress(body: Buffer, interfaces: ReadonlyMap<number, Interface>): InterfaceAddress[] {
  const found = interfaces.get(body.readUInt32LE(4))
  const present = body.subarray(addressBytes)
  // On a point-to-point interface IFA_ADDRESS is the peer's.
  const bytes = attribute(present, IFA_LOCAL) ?? attribute(present, IFA_ADDRESS)
  const family = families[body.readUInt8(0)]
  if (found === undefined || bytes === undefined || family === undefined) return []
  return [{ ...found, address: formatAddress(bytes), family, scope: scopeName(body.readUInt8(3)) }]
}

const families: Readonly<Record<number, 4 | 6>> = { [AF_INET]: 4, [AF_INET6]: 6 }

function scopeName(scope: number): InterfaceAddress['scope'] {
  if (scope === RT_SCOPE_HOST) return 'loopback'
  return scope === RT_SCOPE_LINK ? 'link' : 'global'
}

/** From network order. */
export function formatAddress(bytes: Buffer): string {
  return bytes.length === 4 ? bytes.join('.') : addressText(bytes)
}

/** The value of one of several struct rtattr { u16 len; u16 type }, each padded to 4 bytes. A link has some sixty. */
function attribute(bytes: Buffer, type: number): Buffer | undefined {
  for (let at = 0; at + 4 <= bytes.length; ) {
    const length = Math.max(bytes.readUInt16LE(at), 4)
    if (bytes.readUInt16LE(at + 2) === type) return bytes.subarray(at + 4, at + length)
    at += align(length)
  }
  return undefined
}

const align = (length: number) => (length + 3) & ~3

/** All of one kind. A dump during which something changed may lack entries, and is made anew. */
function dump(socket: number, request: number, bodyBytes: number): Message[] {
  for (let attempt = 0; attempt < maxAttempts; attempt++) {
    const message = Buffer.alloc(headerBytes + bodyBytes)
    message.writeUInt32LE(message.length, 0)
    message.writeUInt16LE(request, 4)
    message.writeUInt16LE(NLM_F_REQUEST | NLM_F_DUMP, 6)
    writeSync(socket, message)
    const messages = readDump(socket)
    if (messages !== undefined) return messages
  }
  throw new Error(`the interfaces changed during each of ${maxAttempts} dumps: try again`)
}

/** Undefined when the kernel says that something changed in the meantime. */
function readDump(socket: number): Message[] | undefined {
  const messages: Message[] = []
  let isConsistent = true
  for (;;) {
    const datagram = Buffer.alloc(datagramBytes)
    const length = readSync(socket, datagram)
    for (const { flags, ...message } of split(datagram.subarray(0, length))) {
      if ((flags & NLM_F_DUMP_INTR) !== 0) isConsistent = false
      if (message.type === NLMSG_DONE) return isConsistent ? messages : undefined
      if (message.type === NLMSG_ERROR) throw new SystemError('list addresses', -message.body.readInt32LE(0))
      messages.push(message)
    }
  }
}

/** The messages in one datagram. */
export function split(datagram: Buffer): (Message & { readonly flags: number })[] {
  const messages: (Message & { readonly flags: number })[] = []
  for (let at = 0; at + headerBytes <= datagram.length; ) {
    const length = Math.max(datagram.readUInt32LE(at), headerBytes)
    const body = datagram.subarray(at + headerBytes, at + length)
    messages.push({ type: datagram.readUInt16LE(at + 4), flags: datagram.readUInt16LE(at + 6), body })
    at += align(length)
  }
  return messages
}
