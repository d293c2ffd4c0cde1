// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest'
import {
  compare,
  type Measure,
  measured,
  median,
  meetsTarget,
  type Row,
  race,
  type Step,
  spread,
  table,
  takeTurns,
} from '../../bench/stats.ts'

const row: Row = {
  id: 'startup/version',
  unit: 'ms',
  ours: { min: 25, median: 40.25, max: 61 },
  reference: { min: 24.5, median: 39, max: 60 },
  ratio: 1.04,
  target: 1.1,
  runs: 40,
}

/** Gives the values one after the other and notes whose turn it was. */
function scripted(name: string, values: readonly number[], turns: string[]): Measure {
  const rest = [...values]
  return () => {
    turns.push(name)
    return rest.shift() ?? Number.NaN
  }
}

test.for([
  [[7], 7],
  [[9, 1, 5], 5],
  [[10, 9, 100, 1], 9.5],
] as const)('median(%o) is %d', ([values, expected]) => {
  expect(median(values)).toBe(expected)
})

test('median() of nothing throws', () => {
  expect(() => median([])).toThrow(new RangeError('no values to take the median of'))
})

test('spread() gives the smallest, the middle and the largest value', () => {
  expect(spread([3, 1, 2])).toEqual({ min: 1, median: 2, max: 3 })
})

test('race() runs both in turns and leaves the warm-up out', async () => {
  const turns: string[] = []
  const result = await race(
    { id: 'x', unit: 'ms', target: 1 },
    scripted('a', [1000, 10, 40, 30], turns),
    scripted('b', [1, 20, 20, 20], turns),
    { runs: 3, warmups: 1 },
  )
  expect(turns.join('')).toBe('abababab')
  expect(result).toEqual({
    id: 'x',
    unit: 'ms',
    ours: { min: 10, median: 30, max: 40 },
    reference: { min: 20, median: 20, max: 20 },
    ratio: 1.5,
    target: 1,
    runs: 3,
  })
})

test('race() takes the median of the ratios of the pairs, not the ratio of the medians', async () => {
  const goal = { id: 'x', unit: 'ms', target: 1 }
  const ours = scripted('a', [10, 20, 90], [])
  const reference = scripted('b', [5, 40, 100], [])
  expect(await race(goal, ours, reference, { runs: 3, warmups: 0 })).toMatchObject({ ratio: 0.9 })
})

test('compare() pairs the rounds, whatever their number', () => {
  const goal = { id: 'x', unit: 'ms', target: null }
  expect(compare(goal, [10, 30], [20, 20])).toMatchObject({ ratio: 1, runs: 2, target: null })
})

const forever = Number.POSITIVE_INFINITY

test('takeTurns() lets another step go first in each round, and leaves the warm-up out', async () => {
  const turns: string[] = []
  const step =
    (name: string): Step =>
    async () => ({ [name]: turns.push(name) })
  const samples = await takeTurns([step('a'), step('b'), step('c')], {
    runs: 2,
    warmups: 1,
    budgetMs: forever,
  })
  expect(turns.join('')).toBe('abcbcacab')
  expect([samples('a'), samples('b'), samples('c')]).toEqual([
    [6, 8],
    [4, 9],
    [5, 7],
  ])
  expect(() => samples('d')).toThrow(new RangeError('nothing has measured d'))
})

test('takeTurns() begins no round after its time, but makes one', async () => {
  const samples = await takeTurns([async () => ({ a: 1, b: 2 })], { runs: 9, warmups: 1, budgetMs: 0 })
  expect([samples('a'), samples('b')]).toEqual([[1], [2]])
})

test.for([
  ['ms', 1.1, true],
  ['ms', 1.11, false],
  ['connections/s', 1.1, true],
  ['connections/s', 1.09, false],
] as const)('in %s, a ratio of %d against a target of 1.10 is met: %o', ([unit, ratio, met]) => {
  expect(meetsTarget({ ...row, unit, ratio })).toBe(met)
})

test('without a reference the target bounds what was measured, without a target everything is good', () => {
  const alone = measured({ id: 'x', unit: 'ns', target: 60 }, [50, 60, 99])
  expect(alone).toMatchObject({ reference: null, ratio: null, runs: 3 })
  expect(meetsTarget(alone)).toBe(true)
  expect(meetsTarget({ ...alone, target: 59 })).toBe(false)
  expect(meetsTarget({ ...alone, target: null })).toBe(true)
})

test('table() aligns the columns and marks what is short of its target', () => {
  const slow = { ...row, id: 'startup/add', ratio: 1.3, target: 1.25 }
  expect(table([row, slow]).split('\n')).toEqual([
    'id               unit  ours                reference           ratio  target   runs',
    'startup/version  ms    25.0 / 40.3 / 61.0  24.5 / 39.0 / 60.0  1.040  <= 1.10  40    pass',
    'startup/add      ms    25.0 / 40.3 / 61.0  24.5 / 39.0 / 60.0  1.300  <= 1.25  40    short of target',
    '',
  ])
})

test('table() shows what is not there as a dash', () => {
  const alone = measured({ id: 'hooks/guard', unit: 'ns', target: null }, [70])
  expect(table([alone]).split('\n')[1]).toBe(
    'hooks/guard  ns    70.0 / 70.0 / 70.0  -          -      -       1',
  )
})
