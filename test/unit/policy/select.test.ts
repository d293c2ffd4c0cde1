// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from 'vitest'
import {
  canSelect,
  defaultSelectors,
  isSelected,
  type Labels,
  parseSelectors,
} from '../../../src/policy/select.ts'

const mode = 'istio.io/dataplane-mode'

describe('the default selectors', () => {
  interface Case {
    readonly pod?: string
    readonly namespace?: string
    readonly selected: boolean
  }
  const cases: Case[] = [
    { selected: false },
    { pod: 'ambient', selected: true },
    { pod: 'none', selected: false },
    { pod: 'Ambient', selected: false },
    { namespace: 'ambient', selected: true },
    { namespace: 'none', selected: false },
    { namespace: 'ambient', pod: 'ambient', selected: true },
    { namespace: 'ambient', pod: 'none', selected: false },
    { namespace: 'ambient', pod: 'something', selected: true },
    { namespace: 'none', pod: 'ambient', selected: true },
  ]
  const labels = (value: string | undefined): Labels => (value === undefined ? {} : { [mode]: value })

  test.for(cases)('pod $pod in namespace $namespace: $selected', ({ pod, namespace, selected }) => {
    expect(isSelected(defaultSelectors, labels(pod), labels(namespace))).toBe(selected)
  })

  test('are what Istio writes into AMBIENT_ENABLEMENT_SELECTOR', () => {
    const istio = [
      { podSelector: { matchLabels: { [mode]: 'ambient' } } },
      {
        podSelector: { matchExpressions: [{ key: mode, operator: 'NotIn', values: ['none'] }] },
        namespaceSelector: { matchLabels: { [mode]: 'ambient' } },
      },
    ]
    expect(parseSelectors(istio)).toEqual(defaultSelectors)
  })

  test('leave it open, in every namespace, whether a pod is selected', () => {
    expect(canSelect(defaultSelectors, {})).toBe(true)
  })
})

describe('an expression', () => {
  const cases: [operator: string, values: string[] | undefined, labels: Labels, matches: boolean][] = [
    ['In', ['a', 'b'], { app: 'b' }, true],
    ['In', ['a', 'b'], { app: 'c' }, false],
    ['In', ['a', 'b'], {}, false],
    ['In', [''], { app: '' }, true],
    ['NotIn', ['a', 'b'], { app: 'b' }, false],
    ['NotIn', ['a', 'b'], { app: 'c' }, true],
    ['NotIn', ['a', 'b'], {}, true],
    ['Exists', undefined, { app: '' }, true],
    ['Exists', undefined, {}, false],
    ['DoesNotExist', [], { app: 'a' }, false],
    ['DoesNotExist', [], { other: 'a' }, true],
  ]

  test.for(cases)('%s %j on labels %j: %s', ([operator, values, labels, matches]) => {
    const selectors = parseSelectors([
      { podSelector: { matchExpressions: [{ key: 'app', operator, values }] } },
    ])
    expect(isSelected(selectors, labels, {})).toBe(matches)
  })

  test('is not fooled by what every object has', () => {
    const expression = { key: 'constructor', operator: 'Exists' }
    const selectors = parseSelectors([{ podSelector: { matchExpressions: [expression] } }])
    expect(isSelected(selectors, {}, {})).toBe(false)
    expect(isSelected(selectors, { constructor: 'x' }, {})).toBe(true)
  })
})

describe('a list of selectors', () => {
  test.for([{}, { podSelector: {}, namespaceSelector: {} }, { podSelector: null, namespaceSelector: null }])(
    '%j selects everything',
    (selector) => {
      expect(isSelected(parseSelectors([selector]), {}, {})).toBe(true)
    },
  )

  test('that is empty selects nothing', () => {
    expect(isSelected(parseSelectors([]), { [mode]: 'ambient' }, { [mode]: 'ambient' })).toBe(false)
    expect(canSelect([], {})).toBe(false)
  })

  test('joins its entries by or, and what is in one by and', () => {
    const selectors = parseSelectors([
      { podSelector: { matchLabels: { a: '1', b: '2' } }, namespaceSelector: { matchLabels: { n: '1' } } },
      { podSelector: { matchLabels: { c: '3' }, matchExpressions: [{ key: 'd', operator: 'Exists' }] } },
    ])
    expect(isSelected(selectors, { a: '1', b: '2' }, { n: '1' })).toBe(true)
    expect(isSelected(selectors, { a: '1' }, { n: '1' })).toBe(false)
    expect(isSelected(selectors, { a: '1', b: '2' }, {})).toBe(false)
    expect(isSelected(selectors, { c: '3', d: '' }, {})).toBe(true)
    expect(isSelected(selectors, { c: '3' }, {})).toBe(false)
  })

  test('cannot select in a namespace that no namespaceSelector matches', () => {
    const selectors = parseSelectors([
      { podSelector: { matchLabels: { a: '1' } }, namespaceSelector: { matchLabels: { mesh: 'on' } } },
    ])
    expect(canSelect(selectors, { mesh: 'on' })).toBe(true)
    expect(canSelect(selectors, { mesh: 'off' })).toBe(false)
  })
})

describe('parseSelectors() names what is wrong:', () => {
  const pod = (podSelector: unknown) => [{}, { podSelector }]
  const expression = (value: object) =>
    pod({ matchExpressions: [{ key: 'app', operator: 'In', values: ['a'], ...value }] })
  const at = 'selectors[1].podSelector'
  const cases: [title: string, value: unknown, message: string][] = [
    ['no list', { podSelector: {} }, 'selectors must be a list, not {"podSelector":{}}'],
    ['nothing', undefined, 'selectors must be a list, not nothing'],
    ['an item that is no object', ['a'], 'selectors[0] must be an object, not "a"'],
    [
      'a misspelt field',
      [{ podSelecter: {} }],
      'selectors[0].podSelecter is unknown; allowed are podSelector and namespaceSelector',
    ],
    ['a selector that is a list', pod([]), `${at} must be an object, not []`],
    [
      'a misspelt field of a selector',
      pod({ matchlabels: {} }),
      `${at}.matchlabels is unknown; allowed are matchLabels and matchExpressions`,
    ],
    [
      'matchLabels that are a list',
      pod({ matchLabels: ['a'] }),
      `${at}.matchLabels must be an object, not ["a"]`,
    ],
    [
      'a bad key of matchLabels',
      pod({ matchLabels: { 'a b': 'c' } }),
      `${at}.matchLabels["a b"] is not a label key, such as istio.io/dataplane-mode`,
    ],
    [
      'a value that YAML read as a boolean',
      pod({ matchLabels: { app: true } }),
      `${at}.matchLabels["app"] must be a label value: a string of at most 63 letters, digits, "-", "_", ".", not true`,
    ],
    [
      'matchExpressions that are no list',
      pod({ matchExpressions: {} }),
      `${at}.matchExpressions must be a list, not {}`,
    ],
    [
      'a key of an expression',
      expression({ key: 7 }),
      `${at}.matchExpressions[0].key must be a label key, such as istio.io/dataplane-mode, not 7`,
    ],
    [
      'an operator',
      expression({ operator: 'Equals' }),
      `${at}.matchExpressions[0].operator must be one of In, NotIn, Exists, DoesNotExist, not "Equals"`,
    ],
    [
      'In without values',
      expression({ values: undefined }),
      `${at}.matchExpressions[0].values must have an item with operator In`,
    ],
    [
      'Exists with values',
      expression({ operator: 'Exists' }),
      `${at}.matchExpressions[0].values must be empty with operator Exists`,
    ],
    [
      'a long value',
      expression({ values: ['a', 'x'.repeat(64)] }),
      `${at}.matchExpressions[0].values[1] must be a label value: a string of at most 63 letters, digits, "-", "_", ".", not "${'x'.repeat(56)}...`,
    ],
  ]

  test.for(cases)('%s', ([, value, message]) => {
    expect(() => parseSelectors(value)).toThrow(new Error(message))
  })
})
