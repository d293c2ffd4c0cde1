// SPDX-License-Identifier: Apache-2.0
import {
  chmodSync,
  chownSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import {
  type AskedPod,
  type NodeEnrollment,
  readEnrollment,
  recall,
  writeEnrollment,
} from '../../../src/agent-api/enrollment-file.ts'
import { defaultSelectors, isSelected, type Labels, parseSelectors } from '../../../src/policy/select.ts'
import { RemedyError } from '../../../src/remedy.ts'
import { run } from '../../support/exec.ts'

const numRuns = Number(process.env['FUZZ_RUNS'] ?? 500)
const timeout = 10_000 + 10 * numRuns
const ambient = { 'istio.io/dataplane-mode': 'ambient' }
const byNamespace = parseSelectors([{ namespaceSelector: { matchLabels: ambient } }])

const facts: NodeEnrollment = {
  node: 'node-1',
  selectors: byNamespace,
  excludeNamespaces: ['kube-system', 'both'],
  sidecar: false,
  namespaces: { shop: ambient, plain: {}, 'kube-system': ambient, both: {} },
  pods: {
    'shop/cart': { uids: ['api', 'static'], enroll: true, reason: 'selected' },
    'shop/job': { uids: ['job'], enroll: false, reason: 'label none' },
    'both/in': { uids: ['in'], enroll: true, reason: 'selected before' },
  },
}
const [yes, no, unknown] = [true, false, undefined]

describe('what is said of', () => {
  test.for<[string, Partial<NodeEnrollment>, AskedPod, boolean | undefined, string]>([
    ['a pod that is enrolled', {}, asked('shop/cart', 'api'), yes, 'selected'],
    ['a static pod, by its other uid', {}, asked('shop/cart', 'static'), yes, 'selected'],
    ['a pod that is not enrolled', {}, asked('shop/job', 'job'), no, 'label none'],
    ['a new pod of the name of one that is not', {}, asked('shop/job', 'new'), unknown, 'may be selected'],
    ['a pod without a uid', {}, asked('shop/job', ''), unknown, 'may be selected'],
    ['a new pod of a namespace that is selected', {}, asked('shop/new', 'new'), unknown, 'may be selected'],
    ['a new pod of one that is not', {}, asked('plain/new', 'new'), no, 'no pod of namespace plain'],
    [
      'the same, where pods can select themselves',
      { selectors: defaultSelectors },
      asked('plain/new', 'new'),
      unknown,
      'may be selected',
    ],
    ['the same, where nothing is selected', { selectors: [] }, asked('shop/new', 'new'), no, 'no pod of'],
    ['a namespace that is not known', {}, asked('new/new', 'new'), unknown, 'namespace new is not in it'],
    ['one called like a method', {}, asked('constructor/toString', ''), unknown, 'is not in it'],
    ['an excluded namespace', {}, asked('kube-system/dns', 'dns'), no, 'is in excludeNamespaces'],
    ['a pod that is enrolled all the same', {}, asked('both/in', 'in'), yes, 'selected before'],
    [
      'a pod that may have a sidecar',
      { sidecar: true },
      asked('plain/new', 'new'),
      unknown,
      'it may have a sidecar',
    ],
    [
      'a pod that has one',
      { sidecar: true },
      { ...asked('plain/new', 'new'), annotations: { 'sidecar.istio.io/status': '{}' } },
      unknown,
      'it may have a sidecar',
    ],
    [
      'a pod that has none',
      { sidecar: true },
      { ...asked('plain/new', 'new'), annotations: {} },
      no,
      'no pod of namespace plain',
    ],
    ['a known pod, sidecars or not', { sidecar: true }, asked('shop/job', 'job'), no, 'label none'],
  ])('%s', ([, more, pod, enroll, reason]) => {
    expect(recall({ ...facts, ...more }, pod)).toEqual({ enroll, reason: expect.stringContaining(reason) })
  })
})

function asked(path: string, uid: string): AskedPod {
  const [namespace = '', name = ''] = path.split('/')
  return { namespace, name, uid }
}

test('a pod that would be selected is never said not to be enrolled', { timeout }, () => {
  const labels: fc.Arbitrary<Labels> = fc.dictionary(fc.constantFrom('a', 'b'), fc.constantFrom('1', '2'))
  const expression = fc.record({
    key: fc.constantFrom('a', 'b'),
    operator: fc.constantFrom('In', 'NotIn'),
    values: fc.subarray(['1', '2'], { minLength: 1 }),
  })
  const selector = fc.record({
    matchLabels: labels,
    matchExpressions: fc.array(expression, { maxLength: 2 }),
  })
  const selectors = fc.array(fc.record({ podSelector: selector, namespaceSelector: selector }), {
    maxLength: 2,
  })
  let selected = 0
  fc.assert(
    fc.property(selectors, labels, labels, (list, podLabels, namespaceLabels) => {
      const enrollment = { ...facts, selectors: parseSelectors(list), namespaces: { ns: namespaceLabels } }
      if (!isSelected(enrollment.selectors, podLabels, namespaceLabels)) return
      selected++
      expect(recall(enrollment, asked('ns/pod', 'uid')).enroll).toBeUndefined()
    }),
    { numRuns },
  )
  expect(selected).toBeGreaterThan(0)
})

// It has to be root's.
describe.runIf(process.getuid?.() === 0)('the file', () => {
  let dir: string
  let path: string

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'enrollment-'))
    path = join(dir, 'lib/enrollment.json')
  })
  afterEach(() => rmSync(dir, { recursive: true }))

  test('reads as it was written, and nothing else is left in its directory', () => {
    writeEnrollment(path, { ...facts, selectors: defaultSelectors })
    writeEnrollment(path, facts)
    expect(readEnrollment(path)).toEqual({ version: 1, ...facts })
    expect(readdirSync(join(dir, 'lib'))).toEqual(['enrollment.json'])
    expect([statSync(path).mode & 0o777, statSync(join(dir, 'lib')).mode & 0o777]).toEqual([0o600, 0o700])
  })

  test('written anew leaves nothing of a writer that was killed', () => {
    writeEnrollment(path, facts)
    const others = ['enrollment.json.bak', 'enrollment.json.7.tmp.bak', 'other.json.7.tmp']
    for (const name of [...others, 'enrollment.json.7.tmp', `enrollment.json.${process.pid}.tmp`]) {
      writeFileSync(join(dir, 'lib', name), '')
    }
    writeEnrollment(path, facts)
    expect(readdirSync(join(dir, 'lib')).sort()).toEqual(['enrollment.json', ...others].sort())
  })

  test('stays as it is when it cannot be written', () => {
    writeEnrollment(path, facts)
    const circular: Record<string, unknown> = {}
    circular['shop'] = circular
    expect(() => writeEnrollment(path, { ...facts, namespaces: circular as never })).toThrow(TypeError)
    expect(readEnrollment(path).namespaces).toEqual(facts.namespaces)
    expect(readdirSync(join(dir, 'lib'))).toEqual(['enrollment.json'])
  })

  const text = (more: object = {}) => JSON.stringify({ version: 1, ...facts, ...more })

  test.for([
    ['', 'it is not JSON'],
    ['{"version":1', 'it is not JSON'],
    ['[]', 'it must be object'],
    [text({ version: '1' }), 'version must be integer'],
    [text({ selectors: {} }), 'selectors must be array'],
    [text({ selectors: [{ podSelector: 7 }] }), 'selectors[0].podSelector must be an object'],
    [text({ excludeNamespaces: [7] }), 'excludeNamespaces.0 must be string'],
    [text({ sidecar: 'no' }), 'sidecar must be boolean'],
    [text({ namespaces: { shop: { a: 1 } } }), 'namespaces.shop.a must be string'],
    [
      text({ pods: { 'shop/cart': { uids: ['api'], enroll: 1, reason: '' } } }),
      'pods.shop/cart.enroll must be boolean',
    ],
    [
      text({ pods: { 'shop/cart': { uids: 'api', enroll: false, reason: '' } } }),
      'pods.shop/cart.uids must be array',
    ],
  ])('that holds %j is refused', ([content = '', fault]) => {
    writeFileSync(join(dir, 'file'), content, { mode: 0o600 })
    expect(() => readEnrollment(join(dir, 'file'))).toThrow(`${dir}/file is not understood: ${fault}`)
  })

  test.for([
    ['not there', () => join(dir, 'nothing'), 'is not there'],
    ['a link', link, 'cannot be read: ELOOP'],
    ['a directory', () => dir, 'is not a file that root alone can write'],
    ['writable by others', () => written(0o620), 'is not a file that root alone can write'],
    ["another user's", () => written(0o600, 65534), 'is not a file that root alone can write'],
    ['a FIFO, which is not waited for', fifo, 'is not a file that root alone can write'],
  ] as const)('that is %s is refused', async ([, make, fault]) => {
    const file = await make()
    expect(() => readEnrollment(file)).toThrow(`${file} ${fault}`)
  })

  function link(): string {
    symlinkSync(written(0o600), join(dir, 'link'))
    return join(dir, 'link')
  }

  function written(mode: number, uid = 0): string {
    const file = join(dir, 'file')
    writeFileSync(file, text())
    chownSync(file, uid, 0)
    chmodSync(file, mode)
    return file
  }

  async function fifo(): Promise<string> {
    await run('mkfifo', ['-m', '600', join(dir, 'fifo')])
    return join(dir, 'fifo')
  }

  test('with any content is read or refused by a RemedyError that names it', { timeout }, () => {
    const file = join(dir, 'file')
    const field = fc.oneof(fc.anything(), fc.constant(facts), fc.constant([]), fc.constant({}))
    const keys = ['version', 'node', 'selectors', 'excludeNamespaces', 'sidecar', 'namespaces', 'pods']
    const broken = fc
      .dictionary(fc.constantFrom(...keys), field)
      .map((more) => JSON.stringify({ ...facts, version: 1, ...more }, plain))
    let [read, refused] = [0, 0]
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json(), broken), (content) => {
        writeFileSync(file, content ?? '', { mode: 0o600 })
        try {
          recall(readEnrollment(file), asked('shop/cart', 'api'))
          read++
        } catch (err) {
          expect(err).toBeInstanceOf(RemedyError)
          expect((err as Error).message).toContain(file)
          refused++
        }
      }),
      { numRuns },
    )
    expect(Math.min(read, refused)).toBeGreaterThan(0)
  })

  function plain(_: string, value: unknown): unknown {
    return typeof value === 'bigint' ? String(value) : value
  }
})
