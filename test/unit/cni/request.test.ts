// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest'
import type { Env } from '../../../src/cni/env.ts'
import { parseRequest, podOf } from '../../../src/cni/request.ts'
import type { AddRequest } from '../../../src/cni/types.ts'
import { envFor, failure, netConf } from './support.ts'

function parse(env: Env, more: Record<string, unknown> = {}) {
  return parseRequest(env, JSON.stringify(netConf(more)))
}

function added(env: Env, more: Record<string, unknown> = {}): AddRequest {
  const request = parse(env, more)
  if (request.command !== 'ADD') throw new Error(`ADD expected, found ${request.command}`)
  return request
}

test('an ADD request holds what the runtime said, and its config', () => {
  const prevResult = { cniVersion: '1.1.0', ips: [{ address: '10.1.0.5/24', interface: 0 }] }
  expect(added(envFor('ADD', { CNI_NETNS_OVERRIDE: 'true' }), { prevResult })).toEqual({
    command: 'ADD',
    containerId: 'c0ffee',
    ifname: 'eth0',
    netns: '/var/run/netns/blue',
    netnsOverride: true,
    args: { IgnoreUnknown: '1', K8S_POD_NAMESPACE: 'shop', K8S_POD_NAME: 'cart' },
    config: expect.objectContaining({ prevResult, mode: 'ambient' }),
    warnings: [],
  })
})

test.for([[{}], [{ prevResult: null }], [{ prevResult: undefined }]])(
  'CHECK without prevResult is refused: %j',
  async ([more]) => {
    const config = { cniVersion: '0.4.0', name: 'pods', type: 'ambridge', ...more }
    expect(await failure(envFor('CHECK'), config)).toEqual({
      cniVersion: '0.4.0',
      code: 7,
      msg: 'invalid network configuration: prevResult is missing',
      details: 'CHECK compares with the result of ADD: the container runtime passes it in prevResult',
    })
  },
)

test('CHECK gets prevResult as a member of its own', () => {
  const prevResult = { interfaces: [{ name: 'eth0' }] }
  expect(parse(envFor('CHECK'), { prevResult })).toMatchObject({ command: 'CHECK', prevResult })
})

test.for([
  ['the right key', { 'cni.dev/valid-attachments': [{ containerID: 'a', ifname: 'eth0' }] }, ['a']],
  ['the old key', { 'cni.dev/attachments': [{ containerID: 'b', ifname: 'eth0' }] }, ['b']],
  [
    'both keys, of which the right one counts',
    {
      'cni.dev/attachments': [{ containerID: 'b', ifname: 'eth0' }],
      'cni.dev/valid-attachments': [{ containerID: 'a', ifname: 'eth0' }],
    },
    ['a'],
  ],
  ['an empty list, which removes all', { 'cni.dev/valid-attachments': [] }, []],
  ['null, which is no list', { 'cni.dev/valid-attachments': null, 'cni.dev/attachments': null }, undefined],
  ['no list, which removes nothing', {}, undefined],
] as const)('GC with %s', ([, more, ids]) => {
  const request = parse({ CNI_COMMAND: 'GC' }, more)
  if (request.command !== 'GC') throw new Error('GC expected')
  expect(Object.hasOwn(request, 'validAttachments')).toBe(ids !== undefined)
  expect(request.validAttachments?.map(({ containerID }) => containerID)).toEqual(ids)
})

test('podOf() tells the pod by CNI_ARGS and its annotations by runtimeConfig', () => {
  const annotations = { 'istio.io/dataplane-mode': 'ambient' }
  const env = envFor('ADD', { CNI_ARGS: 'K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart;K8S_POD_UID=0-1' })
  const runtimeConfig = { 'io.kubernetes.cri.pod-annotations': annotations }
  expect(podOf(added(env, { runtimeConfig }))).toEqual({
    namespace: 'shop',
    name: 'cart',
    uid: '0-1',
    annotations,
  })
})

test.for([
  [{}],
  [{ runtimeConfig: null }],
  [{ runtimeConfig: { 'io.kubernetes.cri.pod-annotations': null } }],
])('outside Kubernetes a pod has neither a name nor annotations: %j', ([more]) => {
  expect(podOf(added(envFor('ADD', { CNI_ARGS: 'K8S_POD_NAME=' }), more))).toEqual({ annotations: {} })
})

test('VERSION is understood without anything else', () => {
  expect(parseRequest({ CNI_COMMAND: 'VERSION' }, 'not read')).toEqual({ command: 'VERSION' })
})
