// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseObject } from '../../../src/cni/json.ts'
import { envFor, failure } from './support.ts'

const byHand = 'the container runtime writes it to stdin; by hand: CNI_COMMAND=… ambridge < network.json'

test.for(['', ' ', '\n\t\r\n', '\ufeff'])(
  'stdin that holds %j is no configuration: code 6',
  async (stdin) => {
    expect(await failure(envFor('ADD'), stdin)).toEqual({
      cniVersion: '1.1.0',
      code: 6,
      msg: 'no network configuration on stdin',
      details: byHand,
    })
  },
)

test.for([
  ['null', 'null'],
  ['[]', 'an array'],
  ['1', 'a number'],
  ['"a"', 'a string'],
  ['true', 'a boolean'],
])('stdin that holds %s is not an object: code 6', async ([stdin, what]) => {
  expect(await failure(envFor('ADD'), stdin)).toEqual({
    cniVersion: '1.1.0',
    code: 6,
    msg: 'network configuration is not a JSON object',
    details: `stdin holds ${what}`,
  })
})

test.for([
  ['{', 1, 2, 1, "Expected property name or '}' in JSON at position 1 (line 1 column 2)"],
  ['nonsense', 1, 2, 1, "Unexpected token 'o'"],
  [
    '{"cniVersion": "1.1.0",\n  "name": "pods"\n  "type": "ambridge"}',
    3,
    3,
    43,
    "Expected ',' or '}' after property value in JSON at position 43 (line 3 column 3)",
  ],
  [
    '{"a":1}\n{"a":1}',
    2,
    1,
    8,
    'Unexpected non-whitespace character after JSON at position 8 (line 2 column 1)',
  ],
  ['{"a":"b', 1, 8, 7, 'Unterminated string in JSON at position 7 (line 1 column 8)'],
  ['{"a":\n', 2, 1, 6, 'Unexpected end of JSON input'],
  ['{"a":01}', 1, 7, 6, 'Unexpected number in JSON at position 6 (line 1 column 7)'],
  ['{\n"a":#\n\n}', 2, 5, 6, "Unexpected token '#'"],
  ['{"a":NaN}', 1, 6, 5, "Unexpected token 'N'"],
  ['{"a":1,}', 1, 8, 7, 'Expected double-quoted property name in JSON at position 7 (line 1 column 8)'],
] as const)(
  'broken JSON %j is refused with code 6 and its place',
  async ([stdin, line, column, at, details]) => {
    expect(await failure(envFor('ADD'), stdin)).toEqual({
      cniVersion: '1.1.0',
      code: 6,
      msg: `network configuration is not JSON: line ${line}, column ${column} (position ${at})`,
      details,
    })
  },
)

test('a document that was cut off is faulty at its end, wherever the cut is', () => {
  const document = fc
    .json({ maxDepth: 3 })
    .map((json) => `{"a":${json},"b":[-1.5e+3,"\\u00e9\\n",true,null]}`)
  const cut = fc.tuple(document, fc.nat()).map(([text, at]) => text.slice(0, 1 + (at % (text.length - 1))))
  fc.assert(
    fc.property(cut, (text) => {
      expect(() => parseObject(text)).toThrow(`(position ${text.length})`)
    }),
  )
})

test('a character that cannot stand between two members is faulty where it stands', () => {
  const before = fc.json({ maxDepth: 3 }).map((json) => `{"a":${json}`)
  fc.assert(
    fc.property(before, fc.constantFrom('#', '\u0000', '}}', ':', ';', '\u2028'), (text, fault) => {
      const at = text.length + (fault === '}}' ? 1 : 0)
      // After a number "e", "." and digits could go on; none of these can.
      expect(() => parseObject(`${text}${fault},"b":1}`)).toThrow(`(position ${at})`)
    }),
  )
})

test('the parts of a message that came from stdin stay out of the details', async () => {
  const { details } = await failure(envFor('ADD'), '{"password": hunter2}')
  expect(details).not.toContain('hunter2')
})
