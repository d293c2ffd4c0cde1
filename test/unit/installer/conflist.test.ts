// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check'
import { expect, test } from 'vitest'
import {
  cniVersionsOf,
  entryOf,
  problemOf,
  satisfies,
  unwrapConf,
  withEntry,
  withoutEntry,
  wrapConf,
} from '../../../installer/conflist.ts'
import { defaultEntry } from '../../../installer/install.ts'
import { testdata } from './host.ts'

test.for(['flannel', 'compact'])('withEntry() appends to the %s list and keeps its layout', (name) => {
  expect(withEntry(testdata(`${name}.conflist`), defaultEntry)).toBe(testdata(`${name}.golden`))
})

test.for(['flannel', 'compact'])('withoutEntry() gives the %s list back to the byte', (name) => {
  expect(withoutEntry(testdata(`${name}.golden`))).toBe(testdata(`${name}.conflist`))
})

test('entryOf() gives the entry without the indentation of the list', () => {
  expect(entryOf(testdata('flannel.golden'))).toBe(defaultEntry)
  expect(entryOf(testdata('flannel.conflist'))).toBeUndefined()
})

test('withEntry() replaces an entry in the place where it is', () => {
  const list =
    '{"name":"n","plugins":[{"type":"ptp"},{"type":"ambridge","mode":"sidecar"},{"type":"tuning"}]}'
  expect(withEntry(list, '{"type":"ambridge"}')).toBe(
    '{"name":"n","plugins":[{"type":"ptp"},{"type":"ambridge"},{"type":"tuning"}]}',
  )
})

test('withoutEntry() takes every entry out, the first and the only one too', () => {
  const ours = '{"type":"ambridge"}'
  expect(withoutEntry(`{"plugins":[${ours}, {"type":"ptp"},${ours} ]}`)).toBe('{"plugins":[{"type":"ptp"} ]}')
  expect(withoutEntry(`{"plugins":[ ${ours} ]}`)).toBe('{"plugins":[  ]}')
})

test('the last one of repeated keys counts, and an escaped key is the key that it means', () => {
  const list = '{"plugins":[{"type":"a"}],"plug\\u0069ns":[{"type":"b"}]}'
  expect(withEntry(list, '{"type":"ambridge"}')).toBe(
    '{"plugins":[{"type":"a"}],"plug\\u0069ns":[{"type":"b"},{"type":"ambridge"}]}',
  )
})

test('wrapConf() makes a list around the conf as it is, and unwrapConf() undoes it', () => {
  const wrapped = wrapConf(testdata('macvlan.conf'))
  expect(withEntry(wrapped, defaultEntry)).toBe(testdata('macvlan.golden'))
  expect(unwrapConf(wrapped)).toBe(testdata('macvlan.conf'))
})

test('wrapConf() takes the last one of repeated keys for the list', () => {
  expect(JSON.parse(wrapConf('{"name":"a","type":"ptp","name":"b"}')).name).toBe('b')
})

test.for([
  ['a list of one plugin that nobody wrapped', testdata('compact.conflist')],
  ['a list of two plugins', testdata('flannel.conflist')],
  ['a wrapped list that was changed', wrapConf(testdata('macvlan.conf')).replace('0.4.0', '1.0.0')],
  ['an empty list', '{"plugins":[]}'],
] as const)('unwrapConf() leaves %s a list', ([, list]) => {
  expect(unwrapConf(list)).toBeUndefined()
})

test.for([
  ['list', '', 'is not JSON: line 1, column 1 (position 0)'],
  ['list', '{"name":"n",\n "plugins": [}', 'is not JSON: line 2, column 14 (position 26)'],
  ['list', '{"name":"n"', 'is not JSON: line 1, column 12 (position 11)'],
  ['list', '[]', 'is not a JSON object'],
  ['list', '{"plugins":[{"type":"ptp"}]}', 'has no "name"'],
  ['list', '{"name":"n","type":"ptp"}', 'has no "plugins"'],
  ['list', '{"name":"n","plugins":[]}', 'has no "plugins"'],
  ['list', '{"name":"n","plugins":[{"type":"ptp"},{"type":""}]}', 'has a plugin without "type"'],
  ['list', '{"name":"n","plugins":["ptp"]}', 'has a plugin without "type"'],
  ['single', '{"name":"n","plugins":[{"type":"ptp"}]}', 'has no "type"'],
  ['single', '{"type":"ptp"}', 'has no "name"'],
  ['single', '{"name":"n","type":"ptp"}', undefined],
  ['list', '{"name":"n","plugins":[{"type":"ptp"}]}', undefined],
] as const)('problemOf() a %s %j: %s', ([kind, text, problem]) => {
  expect(problemOf(text, kind)).toBe(problem)
})

test('cniVersionsOf() gives cniVersion and cniVersions', () => {
  expect(cniVersionsOf('{"cniVersion":"0.4.0","cniVersions":["1.0.0",7]}')).toEqual(['0.4.0', '1.0.0'])
  expect(cniVersionsOf('{}')).toEqual([])
})

test('satisfies() looks at the fields that are wanted, and at nothing else', () => {
  const entry = '{"type":"ambridge","enrollment":{"source":"agent"},"logLevel":"info"}'
  expect(satisfies(entry, '{"enrollment":{"source":"agent"},"type":"ambridge"}')).toBe(true)
  expect(satisfies(entry, '{"type":"ambridge","logLevel":"warn"}')).toBe(false)
  expect(satisfies(entry, '{"type":"ambridge","mode":"ambient"}')).toBe(false)
})

/** Members of JSON that JSON.stringify would not give back: digits, layout, keys that a number sorts first. */
const key = fc.oneof(
  fc.constantFrom('__proto__', '1', 'plug"ins', ']}', 'types'),
  fc.string({ unit: 'grapheme' }),
)
const digits = fc.constantFrom('9007199254740993', '1e400', '-0.0', '1E+2', '1234567890123456789.10')
const { members } = fc.letrec<{ value: string; members: string }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 3 },
    digits,
    fc.json(),
    tie('members').map((text) => `{${text}}`),
    fc.array(tie('value'), { maxLength: 3 }).map((items) => `[ ${items.join('\n,')}]`),
  ),
  members: fc
    .array(fc.tuple(key, tie('value')), { maxLength: 3 })
    .map((all) => all.map(([name, text]) => `${JSON.stringify(name)} : ${text}`).join(', ')),
}))
const gap = fc.constantFrom('', ' ', '\n', '\n    ', '\r\n\t', ' \n  ')
const plugin = fc
  .tuple(members, fc.constantFrom('ptp', 'ambridge2', ',"'), gap)
  .map(
    ([rest, type, space]) => `{${space}${rest && `${rest},`}${space}"type" :${JSON.stringify(type)}${space}}`,
  )
const anyList = fc
  .tuple(members, fc.array(plugin, { minLength: 1, maxLength: 4 }), gap, gap, members)
  .map(([before, plugins, open, close, after]) => {
    const list = `"plugins": [${open}${plugins.join(`${close},${open}`)}${close}]`
    const parts = [before, '"name":"n"', list, after].filter((part) => part !== '')
    return `${open}{${parts.join(`,${close}`)}}${close}`
  })

test('any list has the same bytes after withEntry() and withoutEntry()', () => {
  fc.assert(
    fc.property(anyList, (list) => withoutEntry(withEntry(list, defaultEntry)) === list),
    { numRuns: 1000 },
  )
})

test('any list means the same but for the last plugin after withEntry()', () => {
  fc.assert(
    fc.property(anyList, (list) => {
      const wanted = JSON.parse(list)
      wanted.plugins.push(JSON.parse(defaultEntry))
      const edited = withEntry(list, defaultEntry)
      expect(JSON.parse(edited)).toEqual(wanted)
      expect(withEntry(edited, defaultEntry)).toBe(edited)
    }),
    { numRuns: 500 },
  )
})

test('any conf has the same bytes after wrapConf() and unwrapConf()', () => {
  fc.assert(
    fc.property(plugin, (conf) => {
      const list = wrapConf(conf)
      expect(JSON.parse(list).plugins).toEqual([JSON.parse(conf)])
      expect(unwrapConf(list)).toBe(`${conf}\n`)
    }),
    { numRuns: 500 },
  )
})
