// SPDX-License-Identifier: Apache-2.0
/** Istio's enablement selectors (AMBIENT_ENABLEMENT_SELECTOR): which pods join the mesh, by the labels of pod and namespace. */

export type Labels = Readonly<Record<string, string>>

/** A pod is selected when both match. */
export interface EnablementSelector {
  readonly podSelector: LabelSelector
  readonly namespaceSelector: LabelSelector
}

/** metav1.LabelSelector: all of it has to match, so the empty one matches everything. */
export interface LabelSelector {
  readonly matchLabels: Labels
  readonly matchExpressions: readonly LabelExpression[]
}

export interface LabelExpression {
  readonly key: string
  readonly operator: Operator
  readonly values: readonly string[]
}

const operators = ['In', 'NotIn', 'Exists', 'DoesNotExist'] as const
type Operator = (typeof operators)[number]

/** metav1: an optional DNS prefix, and a name of at most 63 characters. */
const labelKey = /^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/
const labelValue = /^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$/

const dataplaneMode = 'istio.io/dataplane-mode'
const everything: LabelSelector = { matchLabels: {}, matchExpressions: [] }
const ambient: LabelSelector = { matchLabels: { [dataplaneMode]: 'ambient' }, matchExpressions: [] }

/** Istio's: the pod asks for it, or its namespace does and the pod does not refuse. */
export const defaultSelectors: readonly EnablementSelector[] = [
  { podSelector: ambient, namespaceSelector: everything },
  {
    podSelector: {
      matchLabels: {},
      matchExpressions: [{ key: dataplaneMode, operator: 'NotIn', values: ['none'] }],
    },
    namespaceSelector: ambient,
  },
]

/** One entry that matches is enough. */
export function isSelected(
  selectors: readonly EnablementSelector[],
  podLabels: Labels,
  namespaceLabels: Labels,
): boolean {
  return selectors.some(
    ({ podSelector, namespaceSelector }) =>
      matches(podSelector, podLabels) && matches(namespaceSelector, namespaceLabels),
  )
}

/**
 * Whether any pod of that namespace could be selected, whatever its labels. A podSelector that contradicts itself counts
 * as one that can match.
 */
export function canSelect(selectors: readonly EnablementSelector[], namespaceLabels: Labels): boolean {
  return selectors.some(({ namespaceSelector }) => matches(namespaceSelector, namespaceLabels))
}

function matches({ matchLabels, matchExpressions }: LabelSelector, labels: Labels): boolean {
  return (
    Object.entries(matchLabels).every(([key, value]) => labelOf(labels, key) === value) &&
    matchExpressions.every((expression) => holds(expression, labels))
  )
}

function holds({ key, operator, values }: LabelExpression, labels: Labels): boolean {
  const value = labelOf(labels, key)
  if (operator === 'Exists') return value !== undefined
  if (operator === 'DoesNotExist') return value === undefined
  const isListed = value !== undefined && values.includes(value)
  return operator === 'In' ? isListed : !isListed
}

/** A label can be called `constructor`. */
function labelOf(labels: Labels, key: string): string | undefined {
  return Object.hasOwn(labels, key) ? labels[key] : undefined
}

/**
 * The list as YAML or JSON gives it. A selector that is missing or null matches everything. Throws an Error that names the
 * field and what is allowed there; unknown fields are refused, because a misspelt selector would match everything.
 */
export function parseSelectors(value: unknown): EnablementSelector[] {
  return list(value, 'selectors').map((item, index) => {
    const at = `selectors[${index}]`
    const fields = object(item, at, ['podSelector', 'namespaceSelector'])
    return {
      podSelector: parseSelector(fields['podSelector'], `${at}.podSelector`),
      namespaceSelector: parseSelector(fields['namespaceSelector'], `${at}.namespaceSelector`),
    }
  })
}

function parseSelector(value: unknown, at: string): LabelSelector {
  const fields = object(value ?? {}, at, ['matchLabels', 'matchExpressions'])
  const expressions = list(fields['matchExpressions'] ?? [], `${at}.matchExpressions`)
  return {
    matchLabels: parseLabels(fields['matchLabels'] ?? {}, `${at}.matchLabels`),
    matchExpressions: expressions.map((item, index) =>
      parseExpression(item, `${at}.matchExpressions[${index}]`),
    ),
  }
}

function parseLabels(value: unknown, at: string): Labels {
  const entries = Object.entries(object(value, at)).map(([key, text]) => {
    const field = `${at}[${JSON.stringify(key)}]`
    if (!labelKey.test(key)) throw new Error(`${field} is not a label key, such as ${dataplaneMode}`)
    return [key, parseValue(text, field)]
  })
  return Object.fromEntries(entries)
}

function parseExpression(value: unknown, at: string): LabelExpression {
  const { key, operator, values } = object(value, at, ['key', 'operator', 'values'])
  if (typeof key !== 'string' || !labelKey.test(key)) {
    throw new Error(`${at}.key must be a label key, such as ${dataplaneMode}, not ${shown(key)}`)
  }
  const known = operators.find((each) => each === operator)
  if (known === undefined) {
    throw new Error(`${at}.operator must be one of ${operators.join(', ')}, not ${shown(operator)}`)
  }
  const parsed = list(values ?? [], `${at}.values`).map((item, index) =>
    parseValue(item, `${at}.values[${index}]`),
  )
  const needsValues = known === 'In' || known === 'NotIn'
  if (needsValues !== parsed.length > 0) {
    throw new Error(`${at}.values must ${needsValues ? 'have an item' : 'be empty'} with operator ${known}`)
  }
  return { key, operator: known, values: parsed }
}

/** YAML reads an unquoted true or 1 as no string, and Istio refuses that, too. */
function parseValue(value: unknown, at: string): string {
  if (typeof value === 'string' && labelValue.test(value)) return value
  const what = 'a label value: a string of at most 63 letters, digits, "-", "_", "."'
  throw new Error(`${at} must be ${what}, not ${shown(value)}`)
}

function list(value: unknown, at: string): unknown[] {
  if (Array.isArray(value)) return value
  throw new Error(`${at} must be a list, not ${shown(value)}`)
}

function object(value: unknown, at: string, allowed?: readonly string[]): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new Error(`${at} must be an object, not ${shown(value)}`)
  }
  const unknown = Object.keys(value).find((key) => allowed?.includes(key) === false)
  if (unknown !== undefined) {
    throw new Error(`${at}.${unknown} is unknown; allowed are ${allowed?.join(' and ')}`)
  }
  return { ...value }
}

function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? 'nothing'
  return text.length <= 60 ? text : `${text.slice(0, 57)}...`
}
