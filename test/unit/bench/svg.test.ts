// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest'
import { compare, measured } from '../../bench/stats.ts'
import { plot, relative } from '../../bench/svg.ts'

const good = compare({ id: 'path/rtt', unit: 'us', target: 0.8 }, [4], [10])
const bad = measured({ id: 'hooks/connect4', unit: 'ns', target: 100 }, [400])
const free = measured({ id: 'hooks/guard', unit: 'ns', target: null }, [70])

test.for([
  ['us', 0.5, 0.5],
  ['connections/s', 0.5, 2],
] as const)('relative() is less than 1 for what is better than asked for: %s', ([unit, target, expected]) => {
  expect(relative({ ...compare({ id: 'x', unit, target }, [1], [4]), target })).toBe(expected)
})

test('plot() draws what has a target: a circle at the left of the line, a square at the right', () => {
  const svg = plot([good, bad, free])
  expect(svg.match(/<circle[^>]*>/g)).toEqual(['<circle cx="380" cy="73" r="5" fill="#1b7837"/>'])
  expect(svg).toContain('<rect x="675" y="90" width="10" height="10" fill="#b2182b"/>')
  expect(svg).toContain('>0.400, target at most 0.8</text>')
  expect(svg).toContain('>400.0 ns, target at most 100</text>')
  expect(svg).not.toContain('hooks/guard')
})

test('plot() shows what is far off at the end of the scale', () => {
  const far = measured({ id: 'x', unit: 'ns', target: 1 }, [1e6])
  expect(plot([far])).toContain('<rect x="675" ')
})

test('plot() escapes what XML would take for its own', () => {
  expect(plot([{ ...good, id: 'a<b&c' }])).toContain('>a&lt;b&amp;c</text>')
})
