// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from 'vitest'
import { decidePod, type EnrollmentRules } from '../../../installer/agent/decisions.ts'
import { entryWith } from '../../../installer/agent/entry.ts'
import { policyOf } from '../../../installer/agent/options.ts'
import type { PodView } from '../../../src/k8s/view.ts'
import { defaultSelectors } from '../../../src/policy/select.ts'

const shared = { bpffs: '/sys/fs/bpf/x', socket: '/run/x.sock', enrollmentFile: '/var/lib/x.json' }
const rules: EnrollmentRules = {
  policy: policyOf(entryWith(undefined, { ...shared, excludeNamespaces: undefined })),
  selectors: defaultSelectors,
  ztunnel: { namespace: 'istio-system', serviceAccount: 'ztunnel' },
  sidecar: false,
}
const dataplane = 'istio.io/dataplane-mode'
const sidecarStatus = { 'sidecar.istio.io/status': '' }

function decide(
  pod: Partial<PodView>,
  namespaceLabels: Record<string, string>,
  more: Partial<EnrollmentRules> = {},
) {
  const view: PodView = {
    uid: 'u',
    name: 'p',
    namespace: 'shop',
    serviceAccount: 'default',
    labels: {},
    annotations: {},
    hostNetwork: false,
    phase: 'Running',
    ips: ['10.0.0.1'],
    deleting: false,
    ...pod,
  }
  return decidePod(view, { name: view.namespace, labels: namespaceLabels }, { ...rules, ...more })
}

const ambient = { [dataplane]: 'ambient' }

describe('a pod is enrolled', () => {
  test.for([
    { when: 'its namespace says so', pod: {}, namespace: ambient },
    { when: 'it says so itself', pod: { labels: ambient }, namespace: {} },
    {
      when: 'it has the label app: ztunnel, which anyone can set',
      pod: { labels: { app: 'ztunnel' } },
      namespace: ambient,
    },
    {
      when: 'it is in the namespace of ztunnel with another service account',
      pod: { namespace: 'istio-system', labels: { app: 'ztunnel' } },
      namespace: ambient,
    },
  ])('when $when', ({ pod, namespace }) => {
    expect(decide(pod, namespace)).toMatchObject({ enroll: true, policy: { mode: 'ambient' } })
  })
})

describe('a pod is left alone', () => {
  test.for([
    { when: 'nothing selects it', pod: {}, namespace: {}, reason: 'no selector matches its labels' },
    {
      when: 'it opts out',
      pod: { labels: { [dataplane]: 'none' } },
      namespace: ambient,
      reason: 'no selector matches its labels',
    },
    {
      when: 'it is on the network of the node',
      pod: { hostNetwork: true },
      namespace: ambient,
      reason: 'spec.hostNetwork',
    },
    {
      when: 'its namespace is excluded',
      pod: { namespace: 'kube-system' },
      namespace: ambient,
      reason: 'namespace kube-system is in excludeNamespaces',
    },
    {
      when: 'it has a sidecar',
      pod: { annotations: sidecarStatus },
      namespace: ambient,
      reason: 'annotation sidecar.istio.io/status: the pod has a sidecar',
    },
    {
      when: 'it is ztunnel',
      pod: { namespace: 'istio-system', serviceAccount: 'ztunnel' },
      namespace: ambient,
      reason: 'the pod is ztunnel',
    },
  ])('when $when', ({ pod, namespace, reason }) => {
    expect(decide(pod, namespace)).toEqual({ enroll: false, reason, warnings: [] })
  })
})

test('a pod with a sidecar is captured for it, where sidecars are served; by the user of its container', () => {
  const pod = { annotations: sidecarStatus, proxyUser: 2000 }
  expect(decide(pod, {}, { sidecar: true })).toMatchObject({
    enroll: true,
    policy: { mode: 'sidecar', sidecar: { proxyUid: 2000, proxyGid: 1337 } },
  })
})

test('a pod that asks for what cannot be is refused by the name of its annotation', () => {
  const annotations = { 'istio.io/reroute-virtual-interfaces': 'net1' }
  expect(() => decide({ annotations }, ambient)).toThrow('istio.io/reroute-virtual-interfaces')
})
