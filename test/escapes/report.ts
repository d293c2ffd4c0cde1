// SPDX-License-Identifier: Apache-2.0
/** The table that the escape suite ends with. vitest runs setup() before the first of its files and teardown() after the last. */
import { appendFileSync, existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'

export type Kind = 'closed' | 'limit' | 'escape' | 'not proven'

export interface Row {
  readonly vector: string
  /** What comes of it without ambridge, and with it. */
  readonly without: string
  readonly with: string
  readonly kind: Kind
}

/** The test files run in processes of their own. */
const rowsFile = fileURLToPath(new URL('../../build/escapes.jsonl', import.meta.url))

export function record(row: Row): void {
  appendFileSync(rowsFile, `${JSON.stringify(row)}\n`)
}

export function setup(): void {
  mkdirSync(dirname(rowsFile), { recursive: true })
  rmSync(rowsFile, { force: true })
}

export function teardown(): void {
  if (!existsSync(rowsFile)) return
  const rows = readFileSync(rowsFile, 'utf8').trimEnd().split('\n')
  process.stdout.write(`\n${format(rows.map((row) => JSON.parse(row) as Row)).join('\n')}\n`)
}

export function format(rows: readonly Row[]): string[] {
  const ofKind = (...kinds: Kind[]): Row[] => rows.filter(({ kind }) => kinds.includes(kind))
  const limits = ofKind('limit')
  const vectors = ofKind('closed', 'escape', 'not proven')
  const unproven = ofKind('not proven').length
  return [
    ...table(vectors, 'vector'),
    '',
    ...(limits.length === 0 ? [] : [...table(limits, 'stated limit'), '']),
    ...(unproven === 0 ? [] : [`${unproven} not proven: their tests failed`]),
    `${vectors.length} vectors, ${ofKind('escape').length} escapes`,
  ]
}

function table(rows: readonly Row[], title: string): string[] {
  const cells = [
    [title, 'without ambridge', 'with ambridge'],
    ...rows.map((row) => [row.vector, row.without, row.with]),
  ]
  const widths = [0, 1].map((column) => Math.max(...cells.map((row) => row[column]?.length ?? 0)))
  return cells.map((row) => row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  '))
}
