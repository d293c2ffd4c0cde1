// SPDX-License-Identifier: Apache-2.0
/** The result of the scenario as plain text, at most 150 columns wide. */
import { isDeepStrictEqual } from 'node:util'
import type { Row } from './dial.ts'
import type { Outcome } from './expect.ts'
import { changes, type RulesCheck } from './rules.ts'

const headers = [
  'CLIENT',
  'SERVER',
  'DIALLED',
  'CLIENT SEES',
  'GOT BY',
  'ORIGINAL DESTINATION',
  'SOURCE AT APP',
  '',
]

export function isAsExpected({ outcome, expected }: Row): boolean {
  return isDeepStrictEqual(outcome, expected)
}

export function isUnchanged({ before, after }: RulesCheck): boolean {
  return before === after
}

/** One table for each chain and mode. */
export function renderRows(rows: readonly Row[]): string {
  const groups = Map.groupBy(rows, ({ chain, mode }) => `${chain}, mode ${mode}`)
  const widths = headers.map((header, i) =>
    Math.max(header.length, ...rows.map((row) => cells(row)[i]?.length ?? 0)),
  )
  const line = (texts: readonly string[]): string =>
    texts
      .map((text, i) => text.padEnd(widths[i] ?? 0))
      .join('  ')
      .trimEnd()
  return [...groups]
    .map(([title, members]) => [title, line(headers), ...members.map((row) => line(cells(row)))])
    .map((lines) => [...lines, ...footnotes(groups.get(lines[0] ?? '') ?? [])].join('\n'))
    .join('\n\n')
}

function cells(row: Row): string[] {
  const { client, server, outcome, note } = row
  const who = (enrolled: boolean): string => (enrolled ? 'enrolled' : 'unenrolled')
  const mark = isAsExpected(row) ? `ok${note ? '*' : ''}` : 'WRONG'
  return [who(client.enrolled), who(server.enrolled), asDialled(row), ...outcomeCells(outcome), mark]
}

/** An IPv6 socket that dials IPv4 does so by the mapped address. */
function asDialled({ dialled, family }: Row): string {
  return family.startsWith('v4-mapped') ? dialled.replace(/^(.*):/, '[::ffff:$1]:') : dialled
}

function outcomeCells({ connectedTo, path, originals, source }: Outcome): string[] {
  const got = path.map((each) => each.replace('ztunnel:', '')).join(' ')
  return [connectedTo, got || 'nobody', [...new Set(originals)].join(' ') || '-', source ?? '-']
}

function footnotes(rows: readonly Row[]): string[] {
  const notes = new Set(rows.flatMap(({ note }) => note ?? []))
  const wrong = rows.filter((row) => !isAsExpected(row))
  return [
    ...[...notes].map((note) => `  * ${note}`),
    ...wrong.map((row) => `  WRONG: ${asDialled(row)} should be ${outcomeCells(row.expected).join('  ')}`),
  ]
}

export function renderRules(checks: readonly RulesCheck[]): string {
  const changed = checks.filter((check) => !isUnchanged(check))
  const same = checks.filter(isUnchanged).map(({ of }) => of)
  const what = 'iptables, nft, ip rule, ip route and tc'
  return [
    `${what}: byte for byte as before in ${same.length} of ${checks.length} comparisons`,
    ...same.map((of) => `  unchanged  ${of}`),
    ...changed.flatMap((check) => [
      `  CHANGED    ${check.of}`,
      ...changes(check).map((line) => `    ${line}`),
    ]),
  ].join('\n')
}
