// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { formatAddress, parseAddresses, split } from '../../../src/linux/rtnetlink.ts'

/** struct rtattr, padded. */
function attribute(type: number, value: Buffer): Buffer {
  const bytes = Buffer.alloc((4 + value.length + 3) & ~3)
  bytes.writeUInt16LE(4 + value.length, 0)
  bytes.writeUInt16LE(type, 2)
  value.copy(bytes, 4)
  return bytes
}

function link(index: number, flags: number, name: string) {
  const body = Buffer.alloc(16)
  body.writeInt32LE(index, 4)
  body.writeUInt32LE(flags, 8)
  return { type: 16, body: Buffer.concat([body, attribute(3, Buffer.from(`${name}\0`))]) }
}

function address(index: number, family: number, scope: number, attributes: Buffer[]) {
  const body = Buffer.from([family, 0, 0, scope, 0, 0, 0, 0])
  body.writeUInt32LE(index, 4)
  return { type: 20, body: Buffer.concat([body, ...attributes]) }
}

test('parseAddresses() takes the local end of a point-to-point interface', () => {
  const local = attribute(2, Buffer.from([10, 0, 0, 1]))
  const peer = attribute(1, Buffer.from([10, 0, 0, 2]))
  expect(parseAddresses([link(7, 0, 'tun0'), address(7, 2, 0, [peer, local])])).toEqual([
    { ifname: 'tun0', ifindex: 7, address: '10.0.0.1', family: 4, scope: 'global', internal: false },
  ])
})

test('parseAddresses() passes over other families and vanished interfaces', () => {
  const value = [attribute(1, Buffer.from([10, 0, 0, 2]))]
  expect(parseAddresses([link(7, 0, 'tun0'), address(8, 2, 0, value), address(7, 28, 0, value)])).toEqual([])
})

test('split() stops at the end of a cut datagram', () => {
  const bytes = Buffer.alloc(40)
  bytes.writeUInt32LE(18, 0)
  bytes.writeUInt16LE(20, 4)
  bytes.writeUInt32LE(1000, 20)
  expect(split(bytes).map(({ type, body }) => [type, body.length])).toEqual([
    [20, 2],
    [0, 4],
  ])
})

test.for([
  ['fd10025000000000000000000000000f', 'fd10:250::f'],
  ['00000000000000000000000000000001', '::1'],
  ['fe800000000000000000000000010000', 'fe80::1:0'],
  ['0a0000ff', '10.0.0.255'],
] as const)('formatAddress() writes %s as %s', ([hex, text]) => {
  expect(formatAddress(Buffer.from(hex, 'hex'))).toBe(text)
})

test('formatAddress() gives every IPv6 address a text of its own', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), (bytes) => {
      const text = formatAddress(Buffer.from(bytes))
      expect(expand(text)).toBe(Buffer.from(bytes).toString('hex'))
    }),
  )
})

/** The 32 digits of an IPv6 address. */
function expand(text: string): string {
  const [head = '', tail] = text.split('::').map((part) => part.split(':').filter((group) => group !== ''))
  const groups =
    tail === undefined ? head : [...head, ...Array(8 - head.length - tail.length).fill('0'), ...tail]
  return [...groups].map((group: string) => group.padStart(4, '0')).join('')
}
