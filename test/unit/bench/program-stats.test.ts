// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest'
import { nsPerRun } from '../../bench/program-stats.ts'

test('nsPerRun() divides what came in between', () => {
  expect(nsPerRun('x', { ns: 1000, runs: 10 }, { ns: 4000, runs: 60 })).toBe(60)
})

test('nsPerRun() counts from nothing for a program that the kernel had no count of', () => {
  expect(nsPerRun('x', undefined, { ns: 500, runs: 10 })).toBe(50)
})

test.for([
  [undefined, undefined],
  [
    { ns: 9, runs: 1 },
    { ns: 9, runs: 1 },
  ],
])('nsPerRun() throws for a program that has not run: %o to %o', ([before, after]) => {
  expect(() => nsPerRun('connect4', before, after)).toThrow('connect4: the program has not run')
})
