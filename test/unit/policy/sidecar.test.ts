// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest'
import type { PolicyConfig, SidecarRules } from '../../../src/policy/pod.ts'
import { sidecarRules } from '../../../src/policy/sidecar.ts'

const traffic = 'traffic.sidecar.istio.io'
const own = [15020, 15021, 15090]

const config: PolicyConfig = {
  mode: 'sidecar',
  enrollment: { source: 'static', all: true, namespaces: [], annotations: true },
  dnsCapture: true,
  egressGuard: false,
  excludeNamespaces: [],
  sidecar: { proxyUid: 1000, proxyGid: 2000 },
}

function rules(annotations: Record<string, string>): SidecarRules {
  return sidecarRules({ annotations }, config)
}

test('without annotations, the rules are the defaults of Istio', () => {
  expect(rules({})).toEqual({
    includeInboundPorts: '*',
    excludeInboundPorts: own,
    includeOutboundPorts: [],
    excludeOutboundPorts: [15020],
    includeOutboundRanges: '*',
    excludeOutboundRanges: [],
    includesLoopback: false,
    proxyUid: 1000,
    proxyGid: 2000,
  })
})

const ten = { address: '10.0.0.0', prefix: 8, family: 4 } as const
const ula = { address: 'fd00::', prefix: 8, family: 6 } as const

test.for<[string, string, Partial<SidecarRules>]>([
  ['includeInboundPorts', '80, 443', { includeInboundPorts: [80, 443] }],
  ['includeInboundPorts', '', { includeInboundPorts: [] }],
  ['includeInboundPorts', ' * ', { includeInboundPorts: '*' }],
  ['excludeInboundPorts', '8080,15090', { excludeInboundPorts: [8080, 15090, 15020, 15021] }],
  ['includeOutboundPorts', '0,65535,0', { includeOutboundPorts: [0, 65535] }],
  ['excludeOutboundPorts', '', { excludeOutboundPorts: [] }],
  ['excludeOutboundPorts', '3306', { excludeOutboundPorts: [3306] }],
  [
    'includeOutboundIPRanges',
    '10.0.0.0/8, fd00::/8',
    { includeOutboundRanges: [ten, ula], includesLoopback: false },
  ],
  ['includeOutboundIPRanges', '', { includeOutboundRanges: [], includesLoopback: false }],
  ['includeOutboundIPRanges', '*', { includeOutboundRanges: '*', includesLoopback: false }],
  ['includeOutboundIPRanges', '127.0.0.0/8', { includesLoopback: true }],
  ['includeOutboundIPRanges', '10.0.0.0/8,::1/128', { includesLoopback: true }],
  [
    'excludeOutboundIPRanges',
    '127.0.0.1/32',
    { excludeOutboundRanges: [{ address: '127.0.0.1', prefix: 32, family: 4 }], includesLoopback: false },
  ],
  ['excludeInterfaces', ' , ', {}],
])('%s "%s" is understood', ([key, value, expected]) => {
  expect(rules({ [`${traffic}/${key}`]: value })).toMatchObject(expected)
})

test('the status port is one more excluded inbound port', () => {
  expect(rules({ 'status.sidecar.istio.io/port': '15055' }).excludeInboundPorts).toEqual([...own, 15055])
  expect(rules({ 'status.sidecar.istio.io/port': '15021' }).excludeInboundPorts).toEqual(own)
})

test.for(['', 'REDIRECT', ' REDIRECT '])('interceptionMode %j is what we do', (value) => {
  expect(() => rules({ 'sidecar.istio.io/interceptionMode': value })).not.toThrow()
})

const ports = 'expected numbers from 0 to 65535, separated by commas'
const cidrs = 'expected CIDRs such as 10.0.0.0/8 or fd00::/8, separated by commas'
const portLists = [
  'includeInboundPorts',
  'excludeInboundPorts',
  'includeOutboundPorts',
  'excludeOutboundPorts',
]

const refusals: [string, string, string][] = [
  ...portLists.flatMap((key) =>
    ['65536', '-1', '80,', '80,http', '0x50', '80-90', '1.5', '80;443'].map(
      (value): [string, string, string] => {
        const item = value.split(',').at(-1)
        return [`${traffic}/${key}`, value, `"${item}" is not a port; ${ports}`]
      },
    ),
  ),
  ...['includeOutboundIPRanges', 'excludeOutboundIPRanges'].flatMap((key) =>
    ['10.0.0.0', '10.0.0.0/33', '10.0.0/8', 'fd00::/129', 'fd00:/8', '10.0.0.0/8,', 'all', '10.0.0.0/-1'].map(
      (value): [string, string, string] => {
        const item = value.split(',').at(-1)
        return [`${traffic}/${key}`, value, `"${item}" is not a range; ${cidrs}`]
      },
    ),
  ),
  [`${traffic}/excludeOutboundIPRanges`, '*', `"*" is not a range; ${cidrs}`],
  [
    'sidecar.istio.io/interceptionMode',
    'TPROXY',
    'capture happens at the socket, which is neither REDIRECT nor TPROXY but looks like REDIRECT; allowed values are REDIRECT and NONE',
  ],
  [
    `${traffic}/excludeInterfaces`,
    'net1',
    'capture happens at the socket, before an interface is chosen; ' +
      'remove the annotation and use excludeOutboundIPRanges or excludeInboundPorts instead',
  ],
  ['status.sidecar.istio.io/port', 'http', 'expected one port, 0 to 65535'],
  ['status.sidecar.istio.io/port', '65536', 'expected one port, 0 to 65535'],
]

test.for(refusals)('%s "%s" is refused', ([annotation, value, remedy]) => {
  expect(() => rules({ [annotation]: value })).toThrow(
    expect.objectContaining({
      name: 'PolicyError',
      annotation,
      value,
      remedy,
      message: `cannot capture a pod with annotation ${annotation}: ${JSON.stringify(value)}`,
    }),
  )
})

function list(length: number, item: (index: number) => string): string {
  return Array.from({ length }, (_, index) => item(index)).join(',')
}

test('a list as long as the programs have room for is taken, one entry more is refused', () => {
  const port = (index: number) => `${index + 1}`
  const range = (index: number) => `10.${index}.0.0/16`
  const key = (name: string) => `${traffic}/${name}`
  expect(rules({ [key('includeOutboundPorts')]: list(64, port) }).includeOutboundPorts).toHaveLength(64)
  expect(rules({ [key('excludeInboundPorts')]: list(61, port) }).excludeInboundPorts).toHaveLength(64)
  expect(rules({ [key('includeOutboundIPRanges')]: list(32, range) }).includeOutboundRanges).toHaveLength(32)
  const tooLong = (name: string, text: string) => () => rules({ [key(name)]: text })
  const remedy = (found: number, most: number) =>
    expect.objectContaining({
      remedy: `${found} entries, but the programs hold ${most} per list; merge neighbouring ones or use "*"`,
    })
  expect(tooLong('includeOutboundPorts', list(65, port))).toThrow(remedy(65, 64))
  expect(tooLong('excludeInboundPorts', list(62, port))).toThrow(remedy(65, 64))
  expect(tooLong('excludeOutboundIPRanges', list(33, range))).toThrow(remedy(33, 32))
})
