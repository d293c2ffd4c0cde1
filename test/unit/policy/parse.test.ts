// SPDX-License-Identifier: Apache-2.0
import { isIPv4, isIPv6 } from 'node:net'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { isIpv4, isIpv6 } from '../../../src/address.ts'
import { isLoopbackRange, parseBool, parseCidr, parseNames, parsePort } from '../../../src/policy/parse.ts'

const addressLike = fc.oneof(
  fc.ipV4(),
  fc.ipV6(),
  fc.stringMatching(/^[0-9a-f:.]{0,12}$/),
  fc
    .array(fc.constantFrom('0', '1', 'ffff', '10000', '255', '256', '01', '', '.', ':', '::', '1.2.3.4'))
    .map((parts) => parts.join('')),
  fc.array(fc.constantFrom('0', 'a1', ''), { maxLength: 9 }).map((parts) => parts.join(':')),
)

test('isIpv4() and isIpv6() agree with node:net about every text', () => {
  fc.assert(
    fc.property(addressLike, (text) => {
      expect([isIpv4(text), isIpv6(text)]).toEqual([isIPv4(text), isIPv6(text)])
    }),
    { numRuns: 5000 },
  )
})

test.for([
  '::',
  '::1',
  '1::',
  '1:2:3:4:5:6:7:8',
  '1:2:3:4:5:6:7::',
  '::ffff:1.2.3.4',
  '1:2:3:4:5:6:1.2.3.4',
  'FD00::A',
])('%s is an IPv6 address', (text) => {
  expect(isIpv6(text)).toBe(true)
})

test.for([
  '',
  ':',
  ':::',
  '1::2::3',
  '1:2:3:4:5:6:7',
  '1:2:3:4:5:6:7:8:9',
  '1:2:3:4:5:6:7:8::',
  '1.2.3.4::',
  'g::',
  '12345::',
  'fe80::1%eth0',
  '1.2.3.4',
])('%j is no IPv6 address', (text) => {
  expect(isIpv6(text)).toBe(false)
})

test('parseBool() knows neither more nor less than strconv.ParseBool', () => {
  for (const text of ['1', 't', 'T', 'TRUE', 'true', 'True']) expect(parseBool(text)).toBe(true)
  for (const text of ['0', 'f', 'F', 'FALSE', 'false', 'False']) expect(parseBool(text)).toBe(false)
  for (const text of ['', 'yes', 'on', 'tRue', ' true', '10']) expect(parseBool(text)).toBeUndefined()
})

test('parseNames() trims and drops what is empty', () => {
  expect(parseNames(' a, ,b,,c\t')).toEqual(['a', 'b', 'c'])
  expect(parseNames('')).toEqual([])
})

test('parsePort() takes decimal numbers from 0 to 65535', () => {
  fc.assert(
    fc.property(fc.nat(65_535), (port) => {
      expect(parsePort(` ${port} `)).toBe(port)
    }),
  )
  fc.assert(
    fc.property(fc.integer({ min: 65_536 }), (port) => {
      expect(parsePort(`${port}`)).toBeUndefined()
    }),
  )
  for (const text of ['', ' ', '+80', '-0', '8e1', '٨٠', '80 80']) expect(parsePort(text)).toBeUndefined()
})

test.for([
  ['0.0.0.0/0', { address: '0.0.0.0', prefix: 0, family: 4 }],
  [' 10.1.2.3/32 ', { address: '10.1.2.3', prefix: 32, family: 4 }],
  ['::/0', { address: '::', prefix: 0, family: 6 }],
  ['fd00::1/128', { address: 'fd00::1', prefix: 128, family: 6 }],
  ['::ffff:10.0.0.0/104', { address: '::ffff:10.0.0.0', prefix: 104, family: 6 }],
] as const)('parseCidr() takes %s', ([text, expected]) => {
  expect(parseCidr(text)).toEqual(expected)
})

test.for([
  '',
  '/',
  '10.0.0.0',
  '10.0.0.0/',
  '/8',
  '10.0.0.0/33',
  '10.0.0.0/08',
  '::/129',
  '::/1000',
  '10.0.0.0/8/8',
  '010.0.0.0/8',
])('parseCidr() refuses %j', (text) => {
  expect(parseCidr(text)).toBeUndefined()
})

test.for([
  ['127.0.0.1/32', true],
  ['127.9.0.0/16', true],
  ['::1/128', true],
  ['0:0:0:0:0:0:0:1/128', true],
  ['0.0.0.0/0', false],
  ['128.0.0.0/8', false],
  ['::/0', false],
  ['::11/128', false],
  ['1::1/128', false],
] as const)('isLoopbackRange() of %s is %s', ([text, expected]) => {
  const cidr = parseCidr(text)
  expect(cidr && isLoopbackRange(cidr)).toBe(expected)
})
