// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest'
import { decide, decideChosen } from '../../../src/policy/decide.ts'
import { PolicyError } from '../../../src/policy/error.ts'
import type { Enrollment, Pod, PolicyConfig } from '../../../src/policy/pod.ts'

const mode = 'istio.io/dataplane-mode'
const redirection = 'ambient.istio.io/redirection'
const status = 'sidecar.istio.io/status'
const inject = 'sidecar.istio.io/inject'
const interception = 'sidecar.istio.io/interceptionMode'
const bypass = 'ambient.istio.io/bypass-inbound-capture'
const dns = 'ambient.istio.io/dns-capture'

type Annotations = Readonly<Record<string, string>>
type Overrides = Partial<Omit<PolicyConfig, 'enrollment'>> & { readonly enrollment?: Partial<Enrollment> }

function config({ enrollment = {}, ...more }: Overrides = {}): PolicyConfig {
  return {
    mode: 'ambient',
    dnsCapture: true,
    egressGuard: false,
    excludeNamespaces: [],
    sidecar: { proxyUid: 1337, proxyGid: 1337 },
    ...more,
    enrollment: { source: 'static', all: false, namespaces: [], annotations: true, ...enrollment },
  }
}

function pod(annotations: Annotations = {}, namespace: string | undefined = 'shop'): Pod {
  return { ...(namespace === undefined ? {} : { namespace }), annotations }
}

interface Case {
  readonly title: string
  readonly annotations?: Annotations
  readonly config?: Overrides
  readonly enroll: boolean
  readonly reason: string
}

const all = { enrollment: { all: true } }
const namespaces = { enrollment: { namespaces: ['other', 'shop'] } }
const sidecar = { mode: 'sidecar' } as const
const nothing = { enroll: false, reason: 'nothing asks for it' }

const cases: Case[] = [
  { title: 'a pod without annotations', ...nothing },
  {
    title: 'dataplane-mode ambient',
    annotations: { [mode]: 'ambient' },
    enroll: true,
    reason: `annotation ${mode}: ambient`,
  },
  {
    title: 'redirection enabled',
    annotations: { [redirection]: 'enabled' },
    enroll: true,
    reason: `annotation ${redirection}: enabled`,
  },
  {
    title: 'redirection pending, which is not exactly enabled',
    annotations: { [redirection]: 'pending' },
    ...nothing,
  },
  {
    title: 'redirection Enabled, which is not exactly enabled',
    annotations: { [redirection]: 'Enabled' },
    ...nothing,
  },
  {
    title: 'dataplane-mode sidecar, a value that Istio does not know',
    annotations: { [mode]: 'sidecar' },
    ...nothing,
  },
  {
    title: 'an annotation that the configuration does not look at',
    annotations: { [mode]: 'ambient', [redirection]: 'enabled' },
    config: { enrollment: { annotations: false } },
    ...nothing,
  },
  { title: 'enrollment.all', config: all, enroll: true, reason: 'enrollment.all' },
  {
    title: 'its namespace',
    config: namespaces,
    enroll: true,
    reason: 'namespace shop is in enrollment.namespaces',
  },
  {
    title: 'a namespace whose name only begins alike',
    config: { enrollment: { namespaces: ['sho', 'shop2'] } },
    ...nothing,
  },
  {
    title: 'excludeNamespaces over everything',
    annotations: { [mode]: 'ambient' },
    config: { enrollment: { all: true, namespaces: ['shop'] }, excludeNamespaces: ['shop'] },
    enroll: false,
    reason: 'namespace shop is in excludeNamespaces',
  },
  {
    title: 'a sidecar, whatever the status says',
    annotations: { [mode]: 'ambient', [status]: '' },
    config: all,
    enroll: false,
    reason: `annotation ${status}: the pod has a sidecar`,
  },
  {
    title: 'dataplane-mode none',
    annotations: { [mode]: 'none' },
    config: all,
    enroll: false,
    reason: `annotation ${mode}: none`,
  },
  {
    title: 'dataplane-mode none over redirection enabled',
    annotations: { [mode]: 'none', [redirection]: 'enabled' },
    enroll: false,
    reason: `annotation ${mode}: none`,
  },
  {
    title: 'redirection disabled over its namespace',
    annotations: { [redirection]: 'disabled' },
    config: namespaces,
    enroll: false,
    reason: `annotation ${redirection}: disabled`,
  },
  {
    title: 'mode sidecar and the status',
    annotations: { [status]: '{}' },
    config: sidecar,
    enroll: true,
    reason: `annotation ${status}`,
  },
  { title: 'mode sidecar and no status', config: sidecar, ...nothing },
  {
    title: 'mode sidecar and an ambient annotation',
    annotations: { [mode]: 'ambient' },
    config: sidecar,
    ...nothing,
  },
  {
    title: 'mode sidecar and enrollment.all, with dataplane-mode none',
    annotations: { [mode]: 'none' },
    config: { ...sidecar, ...all },
    enroll: true,
    reason: 'enrollment.all',
  },
  ...['false', 'F', '0'].map((value) => ({
    title: `mode sidecar and inject ${value}`,
    annotations: { [status]: '{}', [inject]: value },
    config: sidecar,
    enroll: false,
    reason: `annotation ${inject}: ${value}`,
  })),
  {
    title: 'mode sidecar and interceptionMode NONE',
    annotations: { [status]: '{}', [interception]: 'NONE' },
    config: sidecar,
    enroll: false,
    reason: `annotation ${interception}: NONE`,
  },
]

test.for(cases)('$title: enroll $enroll', ({ annotations, config: overrides, enroll, reason }) => {
  expect(decide(pod(annotations), config(overrides))).toMatchObject({ enroll, reason, warnings: [] })
})

test.for(['ambient', 'ambient-shared'] as const)(
  '[%s] the policy says what the configuration says',
  (mode) => {
    const decision = decide(pod(), config({ mode, ...all, proxyIdentity: 'mark', dnsCapture: false }))
    expect(decision).toEqual({
      enroll: true,
      reason: 'enrollment.all',
      warnings: [],
      policy: { mode, proxyIdentity: 'mark', dnsCapture: false, bypassInbound: false, egressGuard: false },
    })
  },
)

test.for([
  ['ambient', true],
  ['ambient-shared', true],
  ['sidecar', false],
] as const)('DNS is captured unless told otherwise, in mode %s: %s', ([mode, expected]) => {
  const { dnsCapture: _, ...unsaid } = config({ ...all, mode })
  expect(decide(pod(), unsaid)).toMatchObject({ enroll: true, policy: { dnsCapture: expected } })
})

test('without proxyIdentity, the policy leaves it to what the programs were loaded with', () => {
  const decision = decide(pod(), config(all))
  expect(decision).toMatchObject({ enroll: true })
  expect(decision).not.toHaveProperty('policy.proxyIdentity')
})

test.for([
  ['1', true],
  ['t', true],
  ['T', true],
  ['TRUE', true],
  ['true', true],
  ['True', true],
  ['0', false],
  ['f', false],
  ['F', false],
  ['FALSE', false],
  ['false', false],
  ['False', false],
] as const)('boolean annotations are read as Go reads them: %s', ([value, expected]) => {
  for (const dnsCapture of [true, false]) {
    const decision = decide(pod({ [dns]: value, [bypass]: value }), config({ ...all, dnsCapture }))
    expect(decision).toMatchObject({
      policy: { dnsCapture: expected, bypassInbound: expected },
      warnings: [],
    })
  }
})

test.for(['yes', 'tRUE', ' true', ''])('a boolean annotation of %j is ignored with a warning', (value) => {
  const decision = decide(pod({ [dns]: value, [bypass]: value }), config({ ...all, dnsCapture: true }))
  expect(decision).toMatchObject({
    policy: { dnsCapture: true, bypassInbound: false, egressGuard: false },
    warnings: [dns, bypass].map(
      (key) => `annotation ${key} ignored: ${JSON.stringify(value)} is not a boolean`,
    ),
  })
})

test('ambient annotations mean nothing to a pod in mode sidecar', () => {
  const annotations = { [status]: '{}', [dns]: 'false', [bypass]: 'nonsense' }
  expect(decide(pod(annotations), config(sidecar))).toMatchObject({
    policy: { mode: 'sidecar', dnsCapture: true, bypassInbound: false, egressGuard: false },
    warnings: [],
  })
})

const reroute = 'istio.io/reroute-virtual-interfaces'
const kubevirt = 'traffic.sidecar.istio.io/kubevirtInterfaces'
const why =
  'capture happens at the socket, which forwarded traffic of virtual interfaces never reaches; ' +
  'remove the annotation or leave the pod out of the mesh'

test.for([
  ['ambient', reroute],
  ['sidecar', reroute],
  ['sidecar', kubevirt],
] as const)(
  '[%s] an enrolled pod with %s is refused, because it could not be captured whole',
  ([mode, key]) => {
    const given = pod({ [key]: 'net1, net2' })
    expect(() => decide(given, config({ mode, ...all }))).toThrow(
      expect.objectContaining({
        name: 'PolicyError',
        message: `cannot capture a pod with annotation ${key}: "net1, net2"`,
        remedy: why,
      }),
    )
  },
)

test('an annotation of virtual interfaces that names none is no reason to refuse', () => {
  expect(decide(pod({ [reroute]: ' , ' }), config(all))).toMatchObject({ enroll: true })
  expect(decide(pod({ [kubevirt]: 'net1' }), config(all))).toMatchObject({ enroll: true })
})

test('a pod that nobody enrolls is not refused, whatever it asks for', () => {
  expect(decide(pod({ [reroute]: 'net1' }), config())).toMatchObject(nothing)
  expect(decide(pod({ [reroute]: 'net1' }), config({ ...all, excludeNamespaces: ['shop'] }))).toMatchObject({
    enroll: false,
  })
})

test('a pod that nothing asks for, and that is excluded, is told the exclusion', () => {
  expect(decide(pod({ [mode]: 'none' }), config())).toMatchObject({ reason: `annotation ${mode}: none` })
})

test('decideChosen() keeps the reason of the one who chose, and the exclusions win over it', () => {
  expect(decideChosen(pod(), config(), 'label of its namespace')).toMatchObject({
    enroll: true,
    reason: 'label of its namespace',
  })
  expect(decideChosen(pod({ [status]: '' }), config(), 'label')).toMatchObject({
    enroll: false,
    reason: `annotation ${status}: the pod has a sidecar`,
  })
})

test('a pod outside Kubernetes has no namespace, so neither list of namespaces speaks of it', () => {
  const given: Pod = { annotations: {} }
  const lists = { enrollment: { namespaces: ['undefined', ''] }, excludeNamespaces: ['undefined', ''] }
  expect(decide(given, config(lists))).toMatchObject(nothing)
  expect(decide(given, config({ ...lists, ...all }))).toMatchObject({ enroll: true })
})

test('a long value is cut in the message of a PolicyError, and whole in its value', () => {
  const value = 'x'.repeat(121)
  const error = new PolicyError('key', value, 'remedy')
  expect(error.message).toBe(`cannot capture a pod with annotation key: "${'x'.repeat(117)}..."`)
  expect(error.value).toBe(value)
})
