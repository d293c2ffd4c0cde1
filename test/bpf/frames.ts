// SPDX-License-Identifier: Apache-2.0
/** Packets made by hand, each with a mark in it. */
import { randomBytes } from 'node:crypto'
import { addressBytes } from '../../src/address.ts'

export const ethertypes = { ipv4: 0x0800, arp: 0x0806, vlan: 0x8100, ipv6: 0x86dd, local: 0x88b5 } as const

/** IP protocols, and IPv6 extension headers. */
export const protocols = {
  hopByHop: 0,
  icmp: 1,
  ipip: 4,
  tcp: 6,
  udp: 17,
  sixInFour: 41,
  routing: 43,
  fragment: 44,
  gre: 47,
  esp: 50,
  icmp6: 58,
  options: 60,
  sctp: 132,
} as const

/** Flags of TCP. */
export const [fin, syn, rst, psh, ack] = [1, 2, 4, 8, 16] as const

export interface Ends {
  readonly from: string
  readonly to: string
}

/** By which a packet is found again; 4 bytes. */
export function newMark(): Buffer {
  return randomBytes(4)
}

function u16(...values: number[]): Buffer {
  const buf = Buffer.alloc(2 * values.length)
  for (const [i, value] of values.entries()) buf.writeUInt16BE(value, 2 * i)
  return buf
}

/** RFC 1071. The last byte of an odd number counts as the upper half of a word. */
function checksum(bytes: Buffer): number {
  let sum = 0
  for (let at = 0; at < bytes.length; at += 2) sum += ((bytes[at] ?? 0) << 8) + (bytes[at + 1] ?? 0)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16)
  return ~sum & 0xffff
}

/** To everybody, so that nobody has to be known. */
export function ethernet(type: number, payload: Buffer, source = '020000000001'): Buffer {
  return Buffer.concat([Buffer.from('ff'.repeat(6) + source, 'hex'), u16(type), payload])
}

/** `fragment`: flags and offset, as in the header. */
export function ipv4({ from, to }: Ends, protocol: number, payload: Buffer, fragment = 0): Buffer {
  const bytes = (address: string): Uint8Array => addressBytes(address).subarray(12)
  const header = (sum: number): Buffer =>
    Buffer.concat([
      u16(0x4500, 20 + payload.length, 1, fragment, (64 << 8) | protocol, sum),
      bytes(from),
      bytes(to),
    ])
  return Buffer.concat([header(checksum(header(0))), payload])
}

export function ipv6({ from, to }: Ends, next: number, payload: Buffer): Buffer {
  const start = u16(0x6000, 0, payload.length, (next << 8) | 64)
  return Buffer.concat([start, addressBytes(from), addressBytes(to), payload])
}

/** An IPv6 extension header of 8 bytes that says nothing. */
export function extension(next: number, payload: Buffer): Buffer {
  return Buffer.concat([u16(next << 8, 0x0104, 0, 0), payload])
}

/** The mark is the sequence number. */
export function tcp(ends: Ends, flags: number, mark: Buffer, data = ''): Buffer {
  const header = (sum: number): Buffer =>
    Buffer.concat([u16(54321, 8080), mark, u16(0, 1, 0x5000 | flags, 65535, sum, 0), Buffer.from(data)])
  return header(checksum(Buffer.concat([pseudoHeader(ends, protocols.tcp, header(0).length), header(0)])))
}

/** The mark is the payload. */
export function udp(ends: Ends, mark: Buffer): Buffer {
  const segment = (sum: number): Buffer => Buffer.concat([u16(54321, 4433, 12, sum), mark])
  return segment(checksum(Buffer.concat([pseudoHeader(ends, protocols.udp, 12), segment(0)])))
}

/** An echo request, or what else has this type; the mark is at its end. */
export function icmp(type: number, mark: Buffer): Buffer {
  const body = (sum: number): Buffer => Buffer.concat([u16(type << 8, sum, 1, 1), mark])
  return body(checksum(body(0)))
}

export function icmp6(ends: Ends, type: number, mark: Buffer): Buffer {
  const body = (sum: number): Buffer => Buffer.concat([u16(type << 8, sum, 1, 1), mark])
  return body(checksum(Buffer.concat([pseudoHeader(ends, protocols.icmp6, 12), body(0)])))
}

/** Who has `to`? The mark is in the sender's hardware address. */
export function arp({ from, to }: Ends, mark: Buffer): Buffer {
  const [sender, target] = [addressBytes(from).subarray(12), addressBytes(to).subarray(12)]
  return Buffer.concat([u16(1, 0x0800, 0x0604, 1, 0x0200), mark, sender, Buffer.alloc(6), target])
}

/** The words of an IPv4-mapped prefix add 0xffff, which is nothing. */
function pseudoHeader({ from, to }: Ends, protocol: number, length: number): Buffer {
  return Buffer.concat([addressBytes(from), addressBytes(to), u16(protocol, length)])
}
