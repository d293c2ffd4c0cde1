// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest'
import { ReadOnce } from '../../../installer/agent/read-once.ts'

test('what was read after all had asked serves all; who asks later gets it anew', () => {
  let reads = 0
  const list = new ReadOnce(() => ++reads)
  const [first, second] = [performance.now(), performance.now()]
  expect([list.since(first), list.since(second), list.since(first)]).toEqual([1, 1, 1])
  const later = performance.now() + 1
  while (performance.now() < later);
  expect(list.since(performance.now())).toBe(2)
  expect(list.since(first)).toBe(2)
})

test('a read that fails is tried again', () => {
  const answers: (() => string)[] = [
    () => {
      throw new Error('gone')
    },
    () => 'here',
  ]
  const list = new ReadOnce(() => answers.shift()?.())
  expect(() => list.since(0)).toThrow('gone')
  expect(list.since(0)).toBe('here')
})
