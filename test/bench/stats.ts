// SPDX-License-Identifier: Apache-2.0
/** Rows of benchmark results: two contenders, measured in turns in one run, so that a busy machine slows both. */

export interface Spread {
  readonly min: number
  readonly median: number
  readonly max: number
}

export interface Row {
  readonly id: string
  /** A rate when it ends in "/s": then more is better. */
  readonly unit: string
  readonly ours: Spread
  readonly reference: Spread
  /** Median of ours/reference over the pairs. */
  readonly ratio: number
  readonly target: number
  /** Pairs measured. */
  readonly runs: number
}

export interface SuiteOptions {
  readonly runs: number
  /** Takes one line about what was left out, and why. */
  readonly say: (line: string) => void
}

export interface Suite {
  readonly name: string
  run(options: SuiteOptions): Promise<Row[]>
}

export type Goal = Pick<Row, 'id' | 'unit' | 'target'>

/** What a contender took, or did, in one run; in the unit of the row. */
export type Measure = () => number | Promise<number>

export interface Rounds {
  readonly runs: number
  /** Pairs that go before and do not count. */
  readonly warmups: number
}

/** Runs both in turns, A B A B. */
export async function race(goal: Goal, ours: Measure, reference: Measure, rounds: Rounds): Promise<Row> {
  const pairs: [number, number][] = []
  for (let i = -rounds.warmups; i < rounds.runs; i++) {
    const pair: [number, number] = [await ours(), await reference()]
    if (i >= 0) pairs.push(pair)
  }
  return {
    id: goal.id,
    unit: goal.unit,
    ours: spread(pairs.map(([our]) => our)),
    reference: spread(pairs.map(([, theirs]) => theirs)),
    ratio: median(pairs.map(([our, theirs]) => our / theirs)),
    target: goal.target,
    runs: pairs.length,
  }
}

export function spread(values: readonly number[]): Spread {
  return { min: Math.min(...values), median: median(values), max: Math.max(...values) }
}

/** Throws a RangeError when there are no values. */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError('no values to take the median of')
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.slice(Math.ceil(sorted.length / 2) - 1, Math.floor(sorted.length / 2) + 1)
  return middle.reduce((sum, value) => sum + value, 0) / middle.length
}

export function meetsTarget({ unit, ratio, target }: Row): boolean {
  return unit.endsWith('/s') ? ratio >= target : ratio <= target
}

const heading = ['id', 'unit', 'ours', 'reference', 'ratio', 'target', 'runs', '']

/** One line per row, columns aligned; ours and reference as min / median / max. */
export function table(rows: readonly Row[]): string {
  const lines = [heading, ...rows.map(cells)]
  const widths = heading.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)))
  return lines.map((line) => `${padded(line, widths).trimEnd()}\n`).join('')
}

function padded(line: readonly string[], widths: readonly number[]): string {
  return line.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  ')
}

function cells(row: Row): string[] {
  const { id, unit, ours, reference, ratio, target, runs } = row
  const bound = `${unit.endsWith('/s') ? '>=' : '<='} ${target.toFixed(2)}`
  const mark = meetsTarget(row) ? 'pass' : 'short of target'
  return [id, unit, shown(ours), shown(reference), ratio.toFixed(3), bound, String(runs), mark]
}

function shown({ min, median, max }: Spread): string {
  return [min, median, max].map((value) => value.toFixed(1)).join(' / ')
}
