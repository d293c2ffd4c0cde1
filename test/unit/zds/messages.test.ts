// SPDX-License-Identifier: Apache-2.0
/** Byte by byte: ztunnel has these layouts compiled in. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { ZdsError } from '../../../src/zds/error.ts'
import {
  decodeAck,
  decodeHello,
  encodeAdd,
  encodeDel,
  encodeKeep,
  encodeSnapshotSent,
  maxPacketBytes,
} from '../../../src/zds/messages.ts'

const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex')
const info = { name: 'p', namespace: 'ns', serviceAccount: 'sa1' }

test.for([
  ['Add', encodeAdd('u1', info), '0a 12 0a 02 7531 12 0c 0a 01 70 12 02 6e73 1a 03 736131'],
  [
    'Add with empty info',
    encodeAdd('u1', { name: '', namespace: '', serviceAccount: '' }),
    '0a 06 0a 02 7531 12 00',
  ],
  ['Del, whose uid is field 2', encodeDel('u1'), '12 04 12 02 7531'],
  ['SnapshotSent', encodeSnapshotSent(), '1a 00'],
  ['Keep, which is number 5', encodeKeep('u1'), '2a 04 0a 02 7531'],
] as const)('%s', ([, bytes, expected]) => {
  expect(bytes.toString('hex')).toBe(hex(expected).toString('hex'))
})

test('a length above 127 takes two bytes', () => {
  const uid = 'u'.repeat(200)
  expect(encodeDel(uid)).toEqual(Buffer.concat([hex('12 cb01 12 c801'), Buffer.from(uid)]))
})

test('texts are UTF-8', () => {
  expect(encodeKeep('ü')).toEqual(hex('2a 04 0a 02 c3bc'))
})

test('a message of 1024 bytes is the longest', () => {
  const longest = 'u'.repeat(maxPacketBytes - 6)
  expect(encodeDel(longest)).toHaveLength(maxPacketBytes)
  const add = () => encodeAdd('u'.repeat(900), { ...info, name: 'n'.repeat(200) })
  for (const encode of [() => encodeDel(`${longest}u`), () => encodeKeep(`${longest}u`), add]) {
    expect(encode).toThrow(ZdsError)
    expect(encode).toThrow(
      expect.objectContaining({ reason: 'refused', remedy: expect.stringContaining('shorten the names') }),
    )
  }
})

test('all that Kubernetes lets through fits', () => {
  const name = 'x'.repeat(253)
  const longest = { name, namespace: 'x'.repeat(63), serviceAccount: name }
  expect(encodeAdd('x'.repeat(36), longest).length).toBeLessThan(maxPacketBytes)
})

test.for(['08 01', '', '08 00', '08 07', '10 01'])('hello: %s', (bytes) => {
  expect(() => decodeHello(hex(bytes))).not.toThrow()
})

test.for(['08', 'ff', '0a ff', '00'])('no hello: %s', (bytes) => {
  expect(() => decodeHello(hex(bytes))).toThrow()
})

test.for([
  ['0a 00', ''],
  ['0a 04 0a 02 6e6f', 'no'],
  // Fields of a later version are ignored.
  ['0a 06 10 01 0a 02 6e6f', 'no'],
  ['0a 00 10 01', ''],
] as const)('acknowledgement: %s', ([bytes, text]) => {
  expect(decodeAck(hex(bytes))).toBe(text)
})

test('acknowledgement with a long text', () => {
  const text = 'e'.repeat(300)
  expect(decodeAck(Buffer.concat([hex('0a af02 0a ac02'), Buffer.from(text)]))).toBe(text)
})

test.for(['', '08 01', '12 00', '0a', '0a 02 0a 05', '0a 03 0a 01 ff', 'ffffffffffffffffffffff'])(
  'no acknowledgement: %s',
  (bytes) => {
    expect(() => decodeAck(hex(bytes))).toThrow()
  },
)

test('any packet is a text or an error', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: maxPacketBytes }), (bytes) => {
      try {
        expect(typeof decodeAck(Buffer.from(bytes))).toBe('string')
      } catch (err) {
        expect(err).toBeInstanceOf(Error)
      }
    }),
  )
})
