// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest'
import { ApiServer } from '../../support/api-server.ts'
import { run } from '../../support/exec.ts'
import { follow, until, web } from './support.ts'

const clusterUrl = new URL('../../../src/k8s/cluster.ts', import.meta.url)

test('start() knows the pods of the node and all namespaces', async () => {
  await using api = await ApiServer.start()
  api.namespaces.create({ name: 'shop', labels: { 'istio.io/dataplane-mode': 'ambient' } })
  api.pods.create({ name: 'web', uid: 'uid-1', labels: { app: 'web' }, ips: ['10.0.0.1', 'fd00::1'] })
  api.pods.create({ name: 'elsewhere', nodeName: 'node2' })
  await using followed = follow(api)
  const { cluster, changes } = followed
  expect(cluster.synced).toBe(false)
  await cluster.start()
  expect(cluster.synced).toBe(true)
  expect(cluster.pods()).toEqual([
    {
      uid: 'uid-1',
      name: 'web',
      namespace: 'shop',
      serviceAccount: 'default',
      labels: { app: 'web' },
      annotations: {},
      hostNetwork: false,
      phase: 'Running',
      ips: ['10.0.0.1', 'fd00::1'],
      deleting: false,
    },
  ])
  expect(cluster.pod('shop', 'web')).toBe(cluster.pods()[0])
  expect(cluster.namespaces()).toEqual([
    { name: 'shop', labels: { 'kubernetes.io/metadata.name': 'shop', 'istio.io/dataplane-mode': 'ambient' } },
  ])
  expect(cluster.namespace('shop')).toBe(cluster.namespaces()[0])
  expect(changes.toSorted()).toEqual(['+shop', '+shop/web'])
})

test('additions, changes and deletions are told once each', async () => {
  await using api = await ApiServer.start()
  await using followed = follow(api)
  const { cluster, changes } = followed
  await cluster.start()
  api.namespaces.create({ name: 'shop' })
  api.pods.create(web)
  api.pods.create({ ...web, name: 'elsewhere', nodeName: 'node2' })
  await until(() => changes.length === 2)
  api.pods.update(web, { metadata: { labels: { 'istio.io/dataplane-mode': 'ambient' } } })
  api.namespaces.update({ name: 'shop' }, { metadata: { labels: { team: 'a' } } })
  await until(() => changes.length === 4)
  expect(cluster.pod('shop', 'web')?.labels).toEqual({ 'istio.io/dataplane-mode': 'ambient' })
  expect(cluster.namespace('shop')?.labels).toHaveProperty('team', 'a')
  api.pods.delete(web)
  api.namespaces.delete({ name: 'shop' })
  await until(() => changes.length === 6)
  expect(cluster.pods()).toEqual([])
  expect(changes.filter((change) => change.includes('/'))).toEqual(['+shop/web', '~shop/web', '-shop/web'])
  expect(changes.filter((change) => !change.includes('/'))).toEqual(['+shop', '~shop', '-shop'])
})

test('a change gives the view before it', async () => {
  await using api = await ApiServer.start()
  api.pods.create(web)
  const labels: unknown[] = []
  await using followed = follow(api, {
    onPod: (now, before) => labels.push([before?.labels['a'], now?.labels['a']]),
  })
  await followed.cluster.start()
  api.pods.update(web, { metadata: { labels: { a: '1' } } })
  api.pods.update(web, { metadata: { labels: { a: '2' } } })
  api.pods.delete(web)
  await until(() => labels.length === 4)
  expect(labels).toEqual([
    [undefined, undefined],
    [undefined, '1'],
    ['1', '2'],
    ['2', undefined],
  ])
})

test('changes of what the view leaves out are not told', async () => {
  await using api = await ApiServer.start()
  api.pods.create(web)
  await using followed = follow(api)
  const { cluster, changes } = followed
  await cluster.start()
  api.pods.update(web, { status: { conditions: [{ type: 'Ready', status: 'True' }] } })
  api.pods.update(web, { metadata: { annotations: { last: 'one' } } })
  await until(() => cluster.pod('shop', 'web')?.annotations['last'] === 'one')
  expect(changes).toEqual(['+shop/web', '~shop/web'])
})

test('what a handler throws is logged, and the next change is told', async () => {
  await using api = await ApiServer.start()
  api.pods.create({ ...web, name: 'bad' })
  const seen: unknown[] = []
  await using followed = follow(api, {
    onPod: (now) => {
      seen.push(now?.name)
      if (now?.name === 'bad') throw new Error('a defect of the handler')
    },
  })
  await followed.cluster.start()
  api.pods.create(web)
  await until(() => seen.length === 2)
  expect(seen).toEqual(['bad', 'web'])
  expect(followed.log).toEqual([
    expect.objectContaining({
      level: 'error',
      message: 'a change of the cluster could not be handled',
      error: 'a defect of the handler',
    }),
  ])
})

test('only two requests are open, and nothing is asked while nothing happens', async () => {
  await using api = await ApiServer.start()
  await using followed = follow(api)
  await followed.cluster.start()
  await until(() => api.watches.length === 2)
  expect(api.requests.map(({ verb, resource }) => `${verb} ${resource}`).toSorted()).toEqual([
    'list namespaces',
    'list pods',
    'watch namespaces',
    'watch pods',
  ])
  const [pods] = api.requests.filter(({ verb, resource }) => verb === 'watch' && resource === 'pods')
  expect(pods?.query).toMatchObject({ fieldSelector: 'spec.nodeName=node1', allowWatchBookmarks: 'true' })
  expect(Number(pods?.query['timeoutSeconds'])).toBeGreaterThanOrEqual(300)
})

test('closed before it is synced, start() rejects', async () => {
  await using api = await ApiServer.start()
  api.stall()
  const { cluster } = follow(api)
  const started = cluster.start()
  await until(() => api.requests.length === 2)
  await Promise.all([
    expect(started).rejects.toMatchObject({ name: 'AbortError' }),
    cluster[Symbol.asyncDispose](),
  ])
  expect(cluster.synced).toBe(false)
})

test('closed, it has no connection left and asks nothing more', async () => {
  await using api = await ApiServer.start()
  const { cluster } = follow(api)
  await cluster.start()
  await until(() => api.watches.length === 2)
  await cluster[Symbol.asyncDispose]()
  await until(() => api.watches.length === 0)
  const { length } = api.requests
  await expect(cluster.readPod('shop', 'web')).rejects.toMatchObject({ name: 'AbortError' })
  await cluster[Symbol.asyncDispose]()
  expect(api.requests).toHaveLength(length)
})

test('closed, it lets its process end', { timeout: 30_000 }, async () => {
  await using api = await ApiServer.start()
  const script = `
    const { Cluster } = await import(${JSON.stringify(clusterUrl.href)})
    const quiet = { with: () => quiet, warn() {}, info() {}, debug() {}, error() {} }
    const options = { nodeName: 'node1', log: quiet, onPod() {}, onNamespace() {} }
    const cluster = Cluster.connect({ kubeconfig: ${JSON.stringify(api.kubeconfig)}, ...options })
    await cluster.start()
    await cluster.readPod('shop', 'web')
    await cluster[Symbol.asyncDispose]()
    console.log(process.getActiveResourcesInfo().filter((each) => !each.startsWith('Pipe')).join())`
  expect(await run(process.execPath, ['--input-type=module', '--eval', script])).toBe('\n')
})
