// SPDX-License-Identifier: Apache-2.0
import { isRate, meetsTarget, outcome, type Row } from './stats.ts'

/** Pixels. */
const layout = { width: 940, label: 260, plot: 400, gap: 20, line: 22, top: 62, bottom: 16 } as const
/** Of what was measured to its target; the scale is logarithmic. */
const ticks = [0.25, 0.5, 1, 2, 4] as const
const colors = { good: '#1b7837', bad: '#b2182b', rule: '#999999', text: '#222222' } as const

type RowWithTarget = Row & { readonly target: number }

/** Every row that has a target, as its distance from that: left of the line at 1 is better than asked for. */
export function plot(rows: readonly Row[]): string {
  const shown = rows.filter((row): row is RowWithTarget => row.target !== null)
  const height = layout.top + shown.length * layout.line + layout.bottom
  const content = [
    `<rect width="${layout.width}" height="${height}" fill="#ffffff"/>`,
    text(
      layout.gap,
      22,
      'Measured, as a multiple of the target (log scale); left of 1 meets it',
      'start',
      15,
    ),
    ...ticks.map((tick) => axis(tick, height)),
    ...shown.map(line),
  ]
  const size = `viewBox="0 0 ${layout.width} ${height}" width="${layout.width}" height="${height}"`
  const font = `font-family="sans-serif" font-size="12" fill="${colors.text}"`
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size} ${font}>\n<title>The bars of ambridge: measured against target</title>\n${content.join('\n')}\n</svg>\n`
}

/** 1: just met; less is better, also for rates. */
export function relative(row: RowWithTarget): number {
  return isRate(row) ? row.target / outcome(row) : outcome(row) / row.target
}

function axis(tick: number, height: number): string {
  const x = position(tick)
  const width = tick === 1 ? 2 : 0.5
  const bottom = height - layout.bottom
  const rule = `<line x1="${x}" x2="${x}" y1="${layout.top - 8}" y2="${bottom}" stroke="${colors.rule}" stroke-width="${width}"/>`
  return `${text(x, layout.top - 14, String(tick), 'middle')}\n${rule}`
}

/** A circle is good, a square is not: color alone would not tell everybody. */
function line(row: RowWithTarget, index: number): string {
  const y = layout.top + (index + 0.5) * layout.line
  const x = position(relative(row))
  const mark = meetsTarget(row)
    ? `<circle cx="${x}" cy="${y}" r="5" fill="${colors.good}"/>`
    : `<rect x="${x - 5}" y="${y - 5}" width="10" height="10" fill="${colors.bad}"/>`
  const right = layout.label + layout.plot + 2 * layout.gap
  return [text(layout.label, y + 4, row.id, 'end'), mark, text(right, y + 4, caption(row), 'start')].join(
    '\n',
  )
}

function caption(row: RowWithTarget): string {
  const sign = isRate(row) ? 'at least' : 'at most'
  const value = row.ratio === null ? `${row.ours.median.toFixed(1)} ${row.unit}` : row.ratio.toFixed(3)
  return `${value}, target ${sign} ${row.target}`
}

/** What lies beyond the scale is shown at its end. */
function position(value: number): number {
  const [first, last] = [ticks[0], ticks[ticks.length - 1] ?? 1]
  const clipped = Math.min(Math.max(value, first), last)
  const share = Math.log(clipped / first) / Math.log(last / first)
  return Math.round((layout.label + layout.gap + share * layout.plot) * 10) / 10
}

function text(x: number, y: number, content: string, anchor: 'start' | 'middle' | 'end', size = 12): string {
  return `<text x="${x}" y="${y}" text-anchor="${anchor}" font-size="${size}">${escapeXml(content)}</text>`
}

function escapeXml(content: string): string {
  return content.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
}
