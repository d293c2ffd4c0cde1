// SPDX-License-Identifier: Apache-2.0
/** Rows of benchmark results. Contenders are measured in turns in one run, so that a busy machine slows all of them. */

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
  /** null: there is nothing to compare with. */
  readonly reference: Spread | null
  /** Median of ours/reference over the pairs. */
  readonly ratio: number | null
  /** Bounds the ratio, or the median of ours where there is none. null: for information. */
  readonly target: number | null
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

/** Measures one thing or several; the values by name. */
export type Step = () => Promise<Readonly<Record<string, number>>>

export interface Turns extends Rounds {
  /** No round begins after that time; one is made in any case. */
  readonly budgetMs: number
}

/** Of one name, the values of all rounds. Throws for a name that nothing has measured. */
export type Samples = (name: string) => readonly number[]

/** What a suite may take, so that all of it stays within a minute. */
export const budgetMs = 40_000

/** Runs both in turns, A B A B. */
export async function race(goal: Goal, ours: Measure, reference: Measure, rounds: Rounds): Promise<Row> {
  const pairs: [number, number][] = []
  for (let i = -rounds.warmups; i < rounds.runs; i++) {
    const pair: [number, number] = [await ours(), await reference()]
    if (i >= 0) pairs.push(pair)
  }
  return compare(
    goal,
    pairs.map(([our]) => our),
    pairs.map(([, theirs]) => theirs),
  )
}

/** All steps in each round; another one goes first each time, so that none always follows the same other. */
export async function takeTurns(
  steps: readonly Step[],
  { runs, warmups, budgetMs }: Turns,
): Promise<Samples> {
  const values = new Map<string, number[]>()
  const deadline = performance.now() + budgetMs
  for (let i = -warmups; i < runs && (i < 1 || performance.now() < deadline); i++) {
    for (const step of rotate(steps, i + warmups)) {
      const measured = Object.entries(await step())
      if (i >= 0) for (const [name, value] of measured) values.set(name, [...(values.get(name) ?? []), value])
    }
  }
  return (name) => {
    const found = values.get(name)
    if (found === undefined) throw new RangeError(`nothing has measured ${name}`)
    return found
  }
}

function rotate<T>(items: readonly T[], by: number): T[] {
  const at = by % items.length
  return [...items.slice(at), ...items.slice(0, at)]
}

/** Round n of both makes a pair. */
export function compare(goal: Goal, ours: readonly number[], reference: readonly number[]): Row {
  const ratio = median(ours.map((our, i) => our / (reference[i] ?? Number.NaN)))
  return { ...goal, ours: spread(ours), reference: spread(reference), ratio, runs: ours.length }
}

/** A row that stands alone. */
export function measured(goal: Goal, ours: readonly number[]): Row {
  return { ...goal, ours: spread(ours), reference: null, ratio: null, runs: ours.length }
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

export function isRate({ unit }: Pick<Row, 'unit'>): boolean {
  return unit.endsWith('/s')
}

/** What the target bounds. */
export function outcome({ ratio, ours }: Pick<Row, 'ratio' | 'ours'>): number {
  return ratio ?? ours.median
}

/** True without a target. */
export function meetsTarget(row: Row): boolean {
  if (row.target === null) return true
  return isRate(row) ? outcome(row) >= row.target : outcome(row) <= row.target
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
  const { id, unit, ours, reference, ratio, runs } = row
  const [bound, mark] = verdict(row)
  return [id, unit, shown(ours), shown(reference), ratio?.toFixed(3) ?? '-', bound, String(runs), mark]
}

function shown(values: Spread | null): string {
  if (values === null) return '-'
  return [values.min, values.median, values.max].map((value) => value.toFixed(1)).join(' / ')
}

/** The bound, and whether it is kept. */
function verdict(row: Row): [string, string] {
  if (row.target === null) return ['-', '']
  const mark = meetsTarget(row) ? 'pass' : 'short of target'
  return [`${isRate(row) ? '>=' : '<='} ${row.target.toFixed(2)}`, mark]
}
