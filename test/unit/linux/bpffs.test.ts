// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { attachmentPinName, isBpffs, parseAttachmentPinName, pinPaths } from '../../../src/linux/bpffs.ts'

const containerIds = fc.stringMatching(/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$/)
// At most 15 bytes, IFNAMSIZ - 1; the characters that have a meaning in a pin name come often.
const ifnames = fc
  .string({
    unit: fc.oneof(fc.constantFrom('.', '%', ':', '2', '5', 'e'), fc.string({ minLength: 1, maxLength: 1 })),
    minLength: 1,
    maxLength: 15,
  })
  .filter((name) => !/[/\0]/.test(name))

test('attachmentPinName() gives a file name that bpffs takes', () => {
  fc.assert(
    fc.property(containerIds, ifnames, (containerId, ifname) => {
      const name = attachmentPinName(containerId, ifname)
      expect(name).not.toMatch(/[./\0]/)
      expect(Buffer.byteLength(name)).toBeLessThanOrEqual(255)
    }),
  )
})

test('parseAttachmentPinName() is the inverse, so no two attachments share a name', () => {
  fc.assert(
    fc.property(containerIds, ifnames, (containerId, ifname) => {
      const name = attachmentPinName(containerId, ifname)
      expect(parseAttachmentPinName(name)).toEqual({ containerId, ifname })
    }),
  )
})

test('parseAttachmentPinName() refuses every other name', () => {
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom('a', ':', '%', '2', 'e', '5', '.') }), (name) => {
      const parsed = parseAttachmentPinName(name)
      fc.pre(parsed !== undefined)
      expect(attachmentPinName(parsed.containerId, parsed.ifname)).toBe(name)
    }),
  )
  for (const name of ['', 'a', ':eth0', 'a:', 'a:%', 'a:e.0', '%a:eth0']) {
    expect(parseAttachmentPinName(name), name).toBeUndefined()
  }
})

test('attachmentPinName() keeps apart ids and ifnames that look alike', () => {
  expect(attachmentPinName('a.b', 'eth0')).toBe('a%b:eth0')
  expect(attachmentPinName('a', 'eth0.1')).toBe('a:eth0%2e1')
  expect(attachmentPinName('a', 'eth0%2e1')).toBe('a:eth0%252e1')
})

test.for([
  ['a/b', 'eth0'],
  ['', 'eth0'],
  ['a:b', 'eth0'],
  ['a%b', 'eth0'],
  ['a', ''],
  ['a', 'e/0'],
  ['a', 'x'.repeat(254)],
] as const)('attachmentPinName() refuses %j', ([containerId, ifname]) => {
  expect(() => attachmentPinName(containerId, ifname)).toThrow(RangeError)
})

test('pinPaths() are below the base', () => {
  expect(pinPaths('/sys/fs/bpf/ambridge')).toEqual({
    maps: '/sys/fs/bpf/ambridge/maps',
    progs: '/sys/fs/bpf/ambridge/progs',
    links: '/sys/fs/bpf/ambridge/links',
    netns: '/sys/fs/bpf/ambridge/netns',
    guard: '/sys/fs/bpf/ambridge/guard',
  })
})

test('isBpffs() is false for another file system and for nothing', () => {
  expect(isBpffs('/proc')).toBe(false)
  expect(isBpffs('/proc/nothing-here')).toBe(false)
})
