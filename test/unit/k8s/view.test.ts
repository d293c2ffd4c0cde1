// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest'
import { type ApiObject, namespaceView, podView } from '../../../src/k8s/view.ts'

const bare = {
  uid: 'uid-1',
  name: 'web',
  namespace: 'shop',
  serviceAccount: '',
  labels: {},
  annotations: {},
  hostNetwork: false,
  phase: '',
  ips: [],
  deleting: false,
}
const metadata = { uid: 'uid-1', name: 'web', namespace: 'shop' }

test('a pod of which little is known yet', () => {
  expect(podView({ metadata })).toEqual(bare)
})

test('a pod on the network of the node that is being deleted', () => {
  const pod: ApiObject = {
    metadata: { ...metadata, deletionTimestamp: '2026-01-01T00:00:00Z' },
    spec: { hostNetwork: true, serviceAccountName: 'web' },
    status: { phase: 'Running', podIPs: [{ ip: '10.0.0.1' }, {}] },
  }
  const expected = {
    hostNetwork: true,
    serviceAccount: 'web',
    deleting: true,
    phase: 'Running',
    ips: ['10.0.0.1'],
  }
  expect(podView(pod)).toEqual({ ...bare, ...expected })
})

test('a static pod has its hash; a copy of the whole object is not kept', () => {
  const kept = { 'kubernetes.io/config.hash': '36c75065a8826bb1599324da5f982846', note: 'a' }
  const annotations = { ...kept, 'kubectl.kubernetes.io/last-applied-configuration': '{"kind":"Pod"}' }
  const view = podView({ metadata: { ...metadata, annotations } })
  expect(view).toEqual({ ...bare, annotations: kept, configHash: kept['kubernetes.io/config.hash'] })
})

const proxy = { name: 'istio-proxy', securityContext: { runAsUser: 1337, runAsGroup: 1338 } }
const app = { name: 'app', securityContext: { runAsUser: 7 } }

test.for<[title: string, spec: ApiObject['spec'], user: number | undefined, group: number | undefined]>([
  ['a sidecar', { containers: [app, proxy] }, 1337, 1338],
  ['a native sidecar', { initContainers: [proxy], containers: [app] }, 1337, 1338],
  ['no sidecar', { containers: [app], securityContext: { runAsUser: 5 } }, undefined, undefined],
  ['a sidecar as its image says', { containers: [{ name: 'istio-proxy' }] }, undefined, undefined],
  [
    'a sidecar as the pod says',
    {
      containers: [{ name: 'istio-proxy', securityContext: { runAsUser: 9 } }],
      securityContext: { runAsUser: 5, runAsGroup: 6 },
    },
    9,
    6,
  ],
])('user and group of %s', ([, spec, user, group]) => {
  const { proxyUser, proxyGroup } = podView({ metadata, spec: { ...spec } })
  expect([proxyUser, proxyGroup]).toEqual([user, group])
})

test('a namespace', () => {
  expect(namespaceView({ metadata: { name: 'shop', labels: { a: '1' } } })).toEqual({
    name: 'shop',
    labels: { a: '1' },
  })
})
