// SPDX-License-Identifier: Apache-2.0
import { type ValidationError, validateNetConf } from '../schema/validators.gen.cjs'
import { CniCode, CniError } from './errors.ts'
import { exactMember, isObject, mayLosePrecision, parseObject } from './json.ts'
import type { CniCommand, NetConf } from './types.ts'
import { requireVersion } from './version.ts'

interface ParsedConfig {
  readonly config: NetConf
  readonly warnings: readonly string[]
}

/** The keys that a DEL, too, needs. */
const indispensable = new Set(['cniVersion', 'name', 'type'])

/** Network configuration on stdin → typed, checked, with the defaults of the schema. */
export function parseNetConf(command: CniCommand, text: string): ParsedConfig {
  const value = parseObject(text)
  const version = value['cniVersion']
  if (version === undefined || typeof version === 'string') requireVersion(command, version)
  // As it came, so that ADD can hand it on without the loss of a digit.
  if (command === 'ADD' && isObject(value['prevResult']) && mayLosePrecision(text)) {
    value['prevResult'] = exactMember(text, 'prevResult')
  }
  const problems = validate(value)
  if (problems.length === 0) return { config: value as unknown as NetConf, warnings: [] }
  if (command === 'DEL' && !problems.some((p) => indispensable.has(p.key))) return repair(value, problems)
  throw new CniError(
    CniCode.invalidConfig,
    `invalid network configuration: ${problems.map((p) => p.message).join('; ')}`,
    { details: problems.map((p) => p.remedy).join('; ') },
  )
}

/** A typo in the configuration must not keep pods from going away: a DEL uses the default instead. */
function repair(value: Record<string, unknown>, problems: readonly Problem[]): ParsedConfig {
  for (const { key } of problems) delete value[key]
  validate(value)
  const warnings = problems.map((p) => `default used for invalid ${p.key}: ${p.message}`)
  return { config: value as unknown as NetConf, warnings }
}

interface Problem {
  /** Top-level key. */
  readonly key: string
  readonly message: string
  readonly remedy: string
}

function validate(value: Record<string, unknown>): Problem[] {
  if (validateNetConf(value)) return []
  return (validateNetConf.errors ?? []).map((error) => problem(value, error))
}

function problem(value: Record<string, unknown>, error: ValidationError): Problem {
  const keys = error.instancePath.split('/').slice(1).map(unescapePointer)
  const missing = error.params['missingProperty']
  if (typeof missing === 'string') {
    const path = fieldPath([...keys, missing])
    return { key: keys[0] ?? missing, message: `${path} is missing`, remedy: `${path}: add it` }
  }
  const path = fieldPath(keys)
  const given = keys.reduce<unknown>((at, key) => (at as Record<string, unknown>)[key], value)
  const expected = expectation(error)
  return {
    key: keys[0] ?? '',
    message: `${path} must be ${expected.short}`,
    remedy: `${path}: ${expected.long}, found ${shown(given)}`,
  }
}

function expectation({ keyword, params, message }: ValidationError): { short: string; long: string } {
  if (keyword === 'enum') {
    const allowed = (params['allowedValues'] as unknown[]).join(', ')
    return { short: `one of ${allowed}`, long: `allowed values are ${allowed}` }
  }
  if (keyword === 'type') {
    const type = [params['type']].flat().find((name) => name !== 'null')
    return { short: String(type), long: `expected type ${type}` }
  }
  if (params['pattern'] === '^/')
    return { short: 'an absolute path', long: 'expected a path that begins with /' }
  if (keyword === 'pattern') {
    const short = 'a letter or digit, then letters, digits, "_", "." or "-"'
    return { short, long: `expected ${String(params['pattern'])}` }
  }
  const short = (message ?? keyword).replace(/^must be /, '')
  return { short, long: `expected ${short}` }
}

function unescapePointer(token: string): string {
  return token.replaceAll('~1', '/').replaceAll('~0', '~')
}

function fieldPath(keys: readonly string[]): string {
  let path = ''
  for (const key of keys) {
    if (/^\d+$/.test(key)) path += `[${key}]`
    else if (!/^\w+$/.test(key)) path += `[${JSON.stringify(key)}]`
    else path += path === '' ? key : `.${key}`
  }
  return path
}

function shown(value: unknown): string {
  const json = JSON.stringify(value) ?? 'nothing'
  return json.length <= 80 ? json : `${json.slice(0, 77)}...`
}
