// SPDX-License-Identifier: Apache-2.0
import { syntaxErrorAt } from '../json-syntax.ts'
import { CniCode, CniError } from './errors.ts'

type Reviver = (this: unknown, key: string, value: unknown, context: { source: string }) => unknown
const { rawJSON } = JSON as unknown as { rawJSON(text: string): unknown }

/** The object that the text holds; an error names the place of what is wrong. */
export function parseObject(text: string): Record<string, unknown> {
  if (text.trim() === '') {
    throw new CniError(CniCode.decode, 'no network configuration on stdin', {
      details: 'the container runtime writes it to stdin; by hand: CNI_COMMAND=… ambridge < network.json',
    })
  }
  const value = parse(text)
  if (isObject(value)) return value
  throw new CniError(CniCode.decode, 'network configuration is not a JSON object', {
    details: `stdin holds ${value === null ? 'null' : Array.isArray(value) ? 'an array' : `a ${typeof value}`}`,
  })
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** One member of the object in `text`, with the numbers that a double cannot hold as they were written. */
export function exactMember(text: string, key: string): unknown {
  const exact: Reviver = (_key, value, { source }) =>
    typeof value === 'number' && digits(String(value)) !== digits(source) ? rawJSON(source) : value
  const parseWithSource = JSON.parse as (text: string, reviver: Reviver) => Record<string, unknown>
  return parseWithSource(text, exact)[key]
}

/** The digits that count: a number and its double, which have the same magnitude, are equal if these are. */
function digits(number: string): string {
  return number.replace(/e.*|[-.]/gi, '').replace(/^0+|0+$/g, '')
}

/** Whether the text may hold a number that a double cannot hold. */
export function mayLosePrecision(text: string): boolean {
  return /\d[\d.]{15}|\d[eE][-+]?\d/.test(text)
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    const at = syntaxErrorAt(text)
    const line = text.slice(0, at).split('\n').length
    const column = at - text.lastIndexOf('\n', at - 1)
    throw new CniError(
      CniCode.decode,
      `network configuration is not JSON: line ${line}, column ${column} (position ${at})`,
      { details: reason(cause), cause },
    )
  }
}

/** V8 quotes the text around the place, which is no help in a log. */
function reason(cause: unknown): string {
  return (cause instanceof Error ? cause.message : String(cause)).replace(/, (\.\.\.)?".*$/s, '')
}
