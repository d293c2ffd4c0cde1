// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { parseNetConf } from '../../../src/cni/config.ts'
import { CniError } from '../../../src/cni/errors.ts'
import { envFor, failure, netConf, runInProcess } from './support.ts'

interface Schema {
  readonly $ref?: string
  readonly type?: string | string[]
  readonly enum?: string[]
  readonly default?: unknown
  readonly properties?: Record<string, Schema>
  readonly items?: Schema
  readonly additionalProperties?: Schema
}
interface Field {
  /** Keys from the top of the document; "0" is a list's item, "x" any key. */
  readonly keys: readonly string[]
  readonly types: readonly string[]
}

const file = new URL('../../../conf/schema/netconf.json', import.meta.url)
const schema: Schema & { definitions: Record<string, Schema> } = JSON.parse(readFileSync(file, 'utf8'))
const fields = fieldsOf(schema, [])

/** Every field of the schema, at every depth. */
function fieldsOf(given: Schema, keys: readonly string[]): Field[] {
  const name = given.$ref?.replace('#/definitions/', '')
  const node = name === undefined ? given : (schema.definitions[name] ?? given)
  const children = Object.entries(node.properties ?? {})
  if (node.items) children.push(['0', node.items])
  if (node.additionalProperties) children.push(['x', node.additionalProperties])
  const below = children.flatMap(([key, child]) => fieldsOf(child, [...keys, key]))
  const types = node.enum ? ['string'] : [node.type ?? []].flat()
  return keys.length === 0 ? below : [{ keys, types }, ...below]
}

const modes = 'ambient, ambient-shared, sidecar'
const levels = 'error, warn, info, debug'
const podAnnotations = 'runtimeConfig["io.kubernetes.cri.pod-annotations"]'

/** Field, as an error names it → what it must be. */
const expectations: Readonly<Record<string, string>> = {
  cniVersion: 'string',
  name: 'string',
  type: 'string',
  mode: `one of ${modes}`,
  enrollment: 'object',
  'enrollment.source': 'one of agent, static',
  'enrollment.all': 'boolean',
  'enrollment.namespaces': 'array',
  'enrollment.namespaces[0]': 'string',
  'enrollment.annotations': 'boolean',
  proxyIdentity: 'one of cgroup, mark',
  dnsCapture: 'boolean',
  egressGuard: 'boolean',
  sidecar: 'object',
  'sidecar.proxyUid': 'integer',
  'sidecar.proxyGid': 'integer',
  excludeNamespaces: 'array',
  'excludeNamespaces[0]': 'string',
  logLevel: `one of ${levels}`,
  logFile: 'string',
  agentSocket: 'string',
  enrollmentFile: 'string',
  bpffs: 'string',
  capabilities: 'object',
  'capabilities.x': 'boolean',
  runtimeConfig: 'object',
  'runtimeConfig.cgroupPath': 'string',
  [podAnnotations]: 'object',
  [`${podAnnotations}.x`]: 'string',
  prevResult: 'object',
  '["cni.dev/valid-attachments"]': 'array',
  '["cni.dev/valid-attachments"][0]': 'object',
  '["cni.dev/valid-attachments"][0].containerID': 'string',
  '["cni.dev/valid-attachments"][0].ifname': 'string',
  '["cni.dev/attachments"]': 'array',
  '["cni.dev/attachments"][0]': 'object',
  '["cni.dev/attachments"][0].containerID': 'string',
  '["cni.dev/attachments"][0].ifname': 'string',
}

const samples: Readonly<Record<string, unknown>> = {
  null: null,
  boolean: true,
  integer: 7,
  number: 1.5,
  string: '/text',
  array: ['/text'],
  object: { x: 1 },
}

/** Path as in an error. */
function pathOf(keys: readonly string[]): string {
  return keys.reduce((path, key) => {
    if (key === '0') return `${path}[0]`
    if (!/^\w+$/.test(key)) return `${path}["${key}"]`
    return path === '' ? key : `${path}.${key}`
  }, '')
}

/** `value` at the end of `keys`. */
function nested(keys: readonly string[], value: unknown): unknown {
  return keys.reduceRight<unknown>((inner, key) => {
    if (key === '0') return [inner]
    const siblings = key === 'containerID' ? { ifname: 'eth0' } : key === 'ifname' ? { containerID: 'a' } : {}
    return { ...siblings, [key]: inner }
  }, value)
}

/** A value that the field must refuse for its type. */
function wrongValues({ types }: Field): unknown[] {
  return Object.entries(samples)
    .filter(([type]) => !types.includes(type))
    .map(([, value]) => value)
}

test('every field of the schema has its expectation here', () => {
  expect(Object.keys(expectations).toSorted()).toEqual(fields.map(({ keys }) => pathOf(keys)).toSorted())
})

const cases = fields.flatMap((field) =>
  wrongValues(field).map((wrong) => ({ path: pathOf(field.keys), wrong, keys: field.keys })),
)

test.for(cases)('$path may not be $wrong: code 7', async ({ path, keys, wrong }) => {
  const must = expectations[path] ?? ''
  const details = must.startsWith('one of')
    ? must.replace('one of', 'allowed values are')
    : `expected type ${must}`
  const config = { ...netConf(), ...(nested(keys, wrong) as object) }
  expect(await failure(envFor('ADD'), config)).toEqual({
    cniVersion: '1.1.0',
    code: 7,
    msg: `invalid network configuration: ${path} must be ${must}`,
    details: `${path}: ${details}, found ${JSON.stringify(wrong)}`,
  })
})

const values: [Record<string, unknown>, string, string][] = [
  [{ mode: 'ambiant' }, `mode must be one of ${modes}`, `mode: allowed values are ${modes}, found "ambiant"`],
  [
    { enrollment: { source: 'label' } },
    'enrollment.source must be one of agent, static',
    'enrollment.source: allowed values are agent, static, found "label"',
  ],
  [
    { logLevel: 'WARN' },
    `logLevel must be one of ${levels}`,
    `logLevel: allowed values are ${levels}, found "WARN"`,
  ],
  [
    { logFile: 'cni.log' },
    'logFile must be an absolute path',
    'logFile: expected a path that begins with /, found "cni.log"',
  ],
  [
    { agentSocket: '' },
    'agentSocket must be an absolute path',
    'agentSocket: expected a path that begins with /, found ""',
  ],
  [
    { enrollmentFile: 'x.json' },
    'enrollmentFile must be an absolute path',
    'enrollmentFile: expected a path that begins with /, found "x.json"',
  ],
  [
    { bpffs: './x' },
    'bpffs must be an absolute path',
    'bpffs: expected a path that begins with /, found "./x"',
  ],
  [
    { sidecar: { proxyUid: -1 } },
    'sidecar.proxyUid must be >= 0',
    'sidecar.proxyUid: expected >= 0, found -1',
  ],
  [
    { sidecar: { proxyGid: 4294967295 } },
    'sidecar.proxyGid must be <= 4294967294',
    'sidecar.proxyGid: expected <= 4294967294, found 4294967295',
  ],
  [
    { name: '../pods' },
    'name must be a letter or digit, then letters, digits, "_", "." or "-"',
    'name: expected ^[a-zA-Z0-9][a-zA-Z0-9_.\\-]*$, found "../pods"',
  ],
  [{ name: undefined }, 'name is missing', 'name: add it'],
  [{ type: undefined }, 'type is missing', 'type: add it'],
  [
    { 'cni.dev/valid-attachments': [{ ifname: 'eth0' }] },
    '["cni.dev/valid-attachments"][0].containerID is missing',
    '["cni.dev/valid-attachments"][0].containerID: add it',
  ],
  [
    { mode: 'x', logFile: 'y', runtimeConfig: { 'io.kubernetes.cri.pod-annotations': { 'a/b~c': 1 } } },
    `mode must be one of ${modes}; logFile must be an absolute path; ${podAnnotations}["a/b~c"] must be string`,
    `mode: allowed values are ${modes}, found "x"; logFile: expected a path that begins with /, found "y"; ${podAnnotations}["a/b~c"]: expected type string, found 1`,
  ],
  [
    { dnsCapture: 'x'.repeat(100) },
    'dnsCapture must be boolean',
    `dnsCapture: expected type boolean, found "${'x'.repeat(76)}...`,
  ],
]

test.for(values)('%j is refused with code 7', async ([more, msg, details]) => {
  expect(await failure(envFor('CHECK'), netConf(more))).toEqual({
    cniVersion: '1.1.0',
    code: 7,
    msg: `invalid network configuration: ${msg}`,
    details,
  })
})

test('the smallest configuration gets the defaults that the schema promises', () => {
  const { config, warnings } = parseNetConf('ADD', '{"cniVersion":"0.3.0","name":"pods","type":"ambridge"}')
  expect(warnings).toEqual([])
  expect(config).toEqual({
    cniVersion: '0.3.0',
    name: 'pods',
    type: 'ambridge',
    mode: 'ambient',
    enrollment: { source: 'agent', all: false, namespaces: [], annotations: true },
    egressGuard: false,
    sidecar: { proxyUid: 1337, proxyGid: 1337 },
    excludeNamespaces: [],
    logLevel: 'warn',
    logFile: '/var/log/ambridge/cni.log',
    agentSocket: '/run/ambridge/agent.sock',
    enrollmentFile: '/var/lib/ambridge/enrollment.json',
    bpffs: '/sys/fs/bpf/ambridge',
  })
})

test('defaults are new objects for each configuration', () => {
  const text = JSON.stringify(netConf())
  const [a, b] = [parseNetConf('ADD', text).config, parseNetConf('ADD', text).config]
  expect(a.excludeNamespaces).not.toBe(b.excludeNamespaces)
  expect(a.enrollment).not.toBe(b.enrollment)
})

test('what is given stays, and so do the fields of other owners', () => {
  const given = netConf({
    mode: 'sidecar',
    enrollment: { source: 'static', all: true, namespaces: ['shop'], annotations: false, extra: 1 },
    proxyIdentity: 'mark',
    dnsCapture: false,
    egressGuard: true,
    sidecar: { proxyUid: 0, proxyGid: 4294967294 },
    excludeNamespaces: ['kube-system'],
    logLevel: 'debug',
    logFile: '/log',
    agentSocket: '/socket',
    enrollmentFile: '/file',
    bpffs: '/pins',
    capabilities: null,
    runtimeConfig: { cgroupPath: '/kubepods/x', 'io.kubernetes.cri.pod-annotations': null, mac: '00:00' },
    args: { cni: { any: ['thing'] } },
    ipam: {},
  })
  expect(parseNetConf('ADD', JSON.stringify(given)).config).toEqual(given)
})

test('DEL uses the default for an invalid field, warns, and goes on', async () => {
  const stdin = netConf({
    mode: 'x',
    enrollment: { all: 1, namespaces: ['shop'] },
    prevResult: 5,
    bpffs: '/pins',
  })
  const { code, requests } = await runInProcess(envFor('DEL'), stdin)
  expect(code).toBe(0)
  expect(requests).toMatchObject([
    {
      config: {
        mode: 'ambient',
        enrollment: { source: 'agent', all: false, namespaces: [], annotations: true },
        bpffs: '/pins',
      },
      warnings: [
        `default used for invalid mode: mode must be one of ${modes}`,
        'default used for invalid enrollment: enrollment.all must be boolean',
        'default used for invalid prevResult: prevResult must be object',
      ],
    },
  ])
  expect(requests[0]).not.toHaveProperty('config.prevResult')
})

test.for(['cniVersion', 'name', 'type'])('DEL, too, needs a valid %s', async (key) => {
  expect(await failure(envFor('DEL'), netConf({ [key]: 5, mode: 'x' }))).toMatchObject({
    code: 7,
    msg: expect.stringContaining(`${key} must be string`),
  })
})

test('a CniError of a configuration is thrown, not returned', () => {
  expect(() => parseNetConf('STATUS', '{"cniVersion":"1.1.0"}')).toThrow(CniError)
})
