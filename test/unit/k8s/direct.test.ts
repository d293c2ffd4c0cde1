// SPDX-License-Identifier: Apache-2.0
/** What is asked of the API server at once: reads of one object, and the redirection annotation. */
import { expect, test } from 'vitest'
import type { ClusterError } from '../../../src/k8s/error.ts'
import { ApiServer } from '../../support/api-server.ts'
import { follow, web } from './support.ts'

const redirection = 'ambient.istio.io/redirection'

test('readPod() and readNamespace() ask each time, and count', async () => {
  await using api = await ApiServer.start()
  await using followed = follow(api)
  const { cluster } = followed
  api.pods.create({ ...web, nodeName: 'node2', uid: 'uid-1' })
  api.namespaces.create({ name: 'shop' })
  expect(await cluster.readPod('shop', 'web')).toMatchObject({ name: 'web', uid: 'uid-1' })
  expect(await cluster.readNamespace('shop')).toMatchObject({ name: 'shop' })
  expect(await cluster.readPod('shop', 'none')).toBeUndefined()
  expect(await cluster.readNamespace('none')).toBeUndefined()
  expect(cluster.directReads).toBe(4)
  expect(api.count('get')).toBe(4)
  expect(cluster.pod('shop', 'web')).toBeUndefined()
})

test('setRedirection() sets, changes and removes the annotation', async () => {
  await using api = await ApiServer.start()
  await using followed = follow(api)
  api.pods.create({ ...web, annotations: { other: 'stays' } })
  for (const value of ['pending', 'enabled'] as const) {
    await followed.cluster.setRedirection(web, value)
    expect(api.pods.read(web).metadata.annotations).toEqual({ other: 'stays', [redirection]: value })
  }
  await followed.cluster.setRedirection(web, undefined)
  expect(api.pods.read(web).metadata.annotations).toEqual({ other: 'stays' })
  expect(api.count('patch', 'pods/status')).toBe(3)
  expect(followed.cluster.directReads).toBe(0)
})

test('setRedirection() of a pod that is gone, or of the name of one that is another, is no failure', async () => {
  await using api = await ApiServer.start()
  await using followed = follow(api)
  await followed.cluster.setRedirection(web, 'enabled')
  api.pods.create({ ...web, uid: 'second' })
  await followed.cluster.setRedirection({ ...web, uid: 'first' }, 'enabled')
  expect(api.pods.read(web).metadata.annotations).toEqual({})
  await followed.cluster.setRedirection({ ...web, uid: 'second' }, 'enabled')
  expect(api.pods.read(web).metadata.annotations).toEqual({ [redirection]: 'enabled' })
})

test.for([
  [401, 'Unauthorized', 'are not accepted'],
  [403, 'Forbidden', 'the right "get pods"'],
  [429, 'Too Many Requests', 'limits requests'],
  [500, 'Internal Server Error', 'readyz'],
  [503, 'Service Unavailable', 'readyz'],
  [418, "I'm a Teapot", 'is a Kubernetes API server'],
] as const)(
  '%d %s of a read: the error names API server, status and remedy',
  async ([status, name, remedy]) => {
    await using api = await ApiServer.start()
    await using followed = follow(api)
    api.fail({ status })
    const err = await failureOf(followed.cluster.readPod('shop', 'web'))
    expect(err.message).toBe(
      `cannot get pod shop/web: the API server ${api.url} answered ${status} ${name}: ${name}`,
    )
    expect(err.remedy).toContain(remedy)
    expect(err.status).toBe(status)
  },
)

test('403 of a patch names that right', async () => {
  await using api = await ApiServer.start()
  await using followed = follow(api)
  api.fail({ status: 403 })
  const err = await failureOf(followed.cluster.setRedirection(web, 'enabled'))
  expect(err.message).toContain('cannot patch the status of pod shop/web')
  expect(err.remedy).toBe(
    `give the account of the agent (kubeconfig ${api.kubeconfig}) the right "patch pods/status", as its ClusterRole does`,
  )
})

test('an API server that says nothing is given up after the limit', async () => {
  await using api = await ApiServer.start()
  await using followed = follow(api, { timing: { readMs: 100 } })
  api.stall()
  const err = await failureOf(followed.cluster.readPod('shop', 'web'))
  expect(err.message).toBe(`cannot get pod shop/web: no answer of the API server ${api.url} within 0.1 s`)
  expect(err.remedy).toContain('reaches')
})

test('an API server that is not there', async () => {
  await using api = await ApiServer.start()
  await using followed = follow(api)
  await api.down()
  const err = await failureOf(followed.cluster.readPod('shop', 'web'))
  expect(err.message).toContain(`the connection to the API server ${api.url} failed: connect ECONNREFUSED`)
  expect(err.remedy).toContain('nothing listens')
})

test('an answer that is none of an API server', async () => {
  await using api = await ApiServer.start()
  await using followed = follow(api)
  api.fail({ status: 200, text: '<html>' })
  const err = await failureOf(followed.cluster.readPod('shop', 'web'))
  expect(err.message).toContain(`the API server ${api.url} answered what cannot be read`)
})

test('a token that was replaced is read anew when the old one is refused', async () => {
  await using api = await ApiServer.start()
  await using followed = follow(api)
  api.pods.create(web)
  api.token = 'the next one'
  api.writeKubeconfig()
  expect(await followed.cluster.readPod('shop', 'web')).toMatchObject(web)
  expect(api.count('get')).toBe(2)
  expect(followed.cluster.directReads).toBe(1)
})

async function failureOf(promise: Promise<unknown>): Promise<ClusterError> {
  return await promise.then(
    () => expect.fail('an error was expected'),
    (err) => err,
  )
}
