// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest'
import { CniCode, CniError, describe } from '../../../src/cni/errors.ts'
import { PolicyError } from '../../../src/policy/error.ts'

const unexpected = 'unexpected error: the log file has more; please report it with the configuration'

test('an error object has the four members of the specification', () => {
  const error = new CniError(CniCode.tryAgain, 'cannot enroll pod shop/cart', { details: 'ztunnel is away' })
  expect(JSON.parse(error.toJson('0.4.0'))).toEqual({
    cniVersion: '0.4.0',
    code: 11,
    msg: 'cannot enroll pod shop/cart',
    details: 'ztunnel is away',
  })
})

test('without details, an error tells its chain of causes', () => {
  const cause = new Error('update pods', { cause: new Error('E2BIG') })
  const error = new CniError(CniCode.captureFailed, 'cannot enroll pod shop/cart', { cause })
  expect(error).toMatchObject({ details: 'update pods: E2BIG', cause })
})

test('details that are given win over the cause', () => {
  const error = new CniError(CniCode.io, 'a', { details: 'b', cause: new Error('c') })
  expect(error.details).toBe('b')
})

test('CniError.from() keeps a CniError, and answers 101 for a pod that policy refuses', () => {
  const error = new CniError(CniCode.io, 'a')
  expect(CniError.from(error)).toBe(error)
  const refused = new PolicyError('sidecar.istio.io/interceptionMode', 'TPROXY', 'use REDIRECT')
  expect(CniError.from(refused)).toMatchObject({
    code: 101,
    message: 'cannot capture a pod with annotation sidecar.istio.io/interceptionMode: "TPROXY"',
    details: 'use REDIRECT',
    cause: refused,
  })
})

const circular = new Error('round')
circular.cause = circular

test.for([
  [new Error('a', { cause: new TypeError('b') }), 'a: b'],
  [new Error('a', { cause: 'text' }), 'a: text'],
  [new Error('', { cause: new Error('b') }), 'b'],
  [
    new Error('a', { cause: new CniError(CniCode.io, 'b', { details: 'c', cause: new Error('c') }) }),
    'a: b: c',
  ],
  [circular, Array(8).fill('round').join(': ')],
  ['text', 'text'],
  [undefined, 'unknown error'],
  [null, 'null'],
  [new Error(''), 'unknown error'],
  [{ toString: (): string => 'told' }, 'told'],
  [Object.create(null), 'a value without a text form was thrown'],
  [Symbol('s'), 'Symbol(s)'],
] as const)('whatever is thrown becomes code 999 with a text: %o', ([thrown, message]) => {
  expect(describe(thrown)).toBe(message)
  expect(CniError.from(thrown)).toMatchObject({ code: 999, message, details: unexpected, cause: thrown })
})
