// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { envFor, failure, netConf, runInProcess, versions } from './support.ts'

const number = fc.stringMatching(/^-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,20})?([eE][-+]?[0-9]{1,3})?$/)
const key = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 8 }),
  fc.constantFrom(
    '__proto__',
    'constructor',
    'toString',
    'toJSON',
    'rawJSON',
    'prevResult',
    'cniVersion',
    '0',
    '',
  ),
)
const blank = fc.constantFrom('', ' ', '\n\t')

/** Any JSON, as text: a value of JavaScript could not hold every number. */
const { object } = fc.letrec<{ value: string; object: string; array: string }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    number,
    fc.string({ unit: 'binary' }).map((text) => JSON.stringify(text)),
    fc.constantFrom('null', 'true', 'false', '"\\u00e9\\ud83d\\ude00\\/"', '9007199254740993', '1E400', '-0'),
    tie('array'),
    tie('object'),
  ),
  array: fc
    .tuple(fc.array(tie('value'), { maxLength: 4 }), blank)
    .map(([items, gap]) => `[${items.join(`,${gap}`)}]`),
  object: fc
    .tuple(fc.uniqueArray(fc.tuple(key, tie('value')), { selector: ([name]) => name, maxLength: 5 }), blank)
    .map(([members, gap]) => {
      const texts = members.map(([name, value]) => `${JSON.stringify(name)}${gap}:${value}`)
      return `{${gap}${texts.join(',')}}`
    }),
}))

/** Digits without zeros at the ends, and the exponent of the last one. */
function exactNumber(source: string): string {
  const [, sign = '', whole = '', fraction = '', exponent = '0'] =
    /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([-+]?\d+))?$/.exec(source) ?? []
  const digits = (whole + fraction).replace(/^0+/, '')
  const short = digits.replace(/0+$/, '')
  if (short === '') return '0'
  return `${sign}${short}e${Number(exponent) - fraction.length + digits.length - short.length}`
}

/** What a JSON text says: members in the order of their names, numbers to the last digit. */
function meaning(text: string): string {
  const reviver = (_key: string, value: unknown, { source = '' }: { source?: string }): unknown => {
    if (typeof value === 'number') return `number ${exactNumber(source)}`
    if (typeof value === 'string') return `string ${value}`
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
    const members = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1))
    return { members }
  }
  const parse = JSON.parse as (text: string, reviver: unknown) => unknown
  return JSON.stringify(parse(text, reviver))
}

/** The same text with a member of another value, or of a new name. */
function withVersion(text: string, version: string): string {
  const { members } = JSON.parse(meaning(text)) as { members: [string, unknown][] }
  const others = members.filter(([name]) => name !== 'cniVersion')
  const all = [...others, ['cniVersion', `string ${version}`] as const]
  return JSON.stringify({ members: all.toSorted(([a], [b]) => (a < b ? -1 : 1)) })
}

const numRuns = Number(process.env['FUZZ_RUNS'] ?? 2000)
const timeout = 30_000 + 5 * numRuns

test('ADD answers with what prevResult says, to the last digit, but for cniVersion', {
  timeout,
}, async () => {
  await fc.assert(
    fc.asyncProperty(object, fc.constantFrom(...versions), async (prevResult, version) => {
      const stdin = `{"prevResult":${prevResult},"cniVersion":"${version}","name":"pods","type":"ambridge"}`
      const { code, stdout } = await runInProcess(envFor('ADD'), stdin)
      expect(code).toBe(0)
      expect(meaning(stdout)).toBe(withVersion(prevResult, version))
    }),
    { numRuns },
  )
})

test('a number that a double holds reaches the handler as a number, whatever stands beside it', async () => {
  const prevResult = '{"ips":[{"interface":0.0},{"interface":1e1}],"big":12345678901234567890}'
  const stdin = `{"cniVersion":"1.1.0","name":"pods","type":"ambridge","prevResult":${prevResult}}`
  const { requests, stdout } = await runInProcess(envFor('ADD'), stdin)
  expect(requests).toMatchObject([{ config: { prevResult: { ips: [{ interface: 0 }, { interface: 10 }] } } }])
  expect(stdout).toContain('"big":12345678901234567890')
})

test('CHECK, which hands nothing on, gets every number as a number', async () => {
  const stdin =
    '{"cniVersion":"1.1.0","name":"pods","type":"ambridge","prevResult":{"big":12345678901234567890}}'
  const { requests } = await runInProcess(envFor('CHECK'), stdin)
  expect(requests).toMatchObject([{ command: 'CHECK', prevResult: { big: 12345678901234567000 } }])
})

test.for(['12345678901234567890', '1e2', '"12345678901234567890"', '[12345678901234567890]'])(
  'a prevResult of %s is not an object, so it is refused',
  async (prevResult) => {
    const stdin = `{"cniVersion":"1.1.0","name":"pods","type":"ambridge","prevResult":${prevResult}}`
    expect(await failure(envFor('ADD'), stdin)).toMatchObject({
      code: 7,
      msg: 'invalid network configuration: prevResult must be object',
      details: `prevResult: expected type object, found ${JSON.stringify(JSON.parse(prevResult))}`,
    })
  },
)

test('a big number elsewhere in the configuration does no harm', async () => {
  const { code, stdout } = await runInProcess(
    envFor('ADD'),
    JSON.stringify(netConf({ prevResult: undefined })).replace('{', '{"mtu":12345678901234567890,'),
  )
  expect({ code, stdout }).toEqual({ code: 0, stdout: '{"cniVersion":"1.1.0"}\n' })
})
