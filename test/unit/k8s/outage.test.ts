// SPDX-License-Identifier: Apache-2.0
/** The copy of the cluster stays true whatever happens to watches and API server. */
import { describe, expect, test, vi } from 'vitest'
import { ApiServer } from '../../support/api-server.ts'
import { type Followed, follow, followOne, until, web } from './support.ts'

/** The versions that watches of pods began at. */
function watchedFrom(api: ApiServer): (string | undefined)[] {
  return api.requests
    .filter(({ verb, resource }) => verb === 'watch' && resource === 'pods')
    .map(({ query }) => query['resourceVersion'])
}

function lines({ log }: Followed, level: string) {
  return log.filter((entry) => entry.level === level)
}

describe('a watch that', () => {
  test('ends or breaks goes on where it was', async () => {
    await using api = await ApiServer.start()
    await using followed = await followOne(api)
    for (const [index, interrupt] of [() => api.endWatches(), () => api.dropWatches()].entries()) {
      interrupt()
      api.pods.update(web, { metadata: { labels: { change: String(index) } } })
      await until(() => followed.cluster.pod('shop', 'web')?.labels['change'] === String(index))
      await until(() => api.watches.length === 2)
    }
    expect(followed.changes).toEqual(['+shop/web', '~shop/web', '~shop/web'])
    expect(api.count('list')).toBe(2)
  })

  test('breaks while the API server is away: a deletion meanwhile is told', async () => {
    await using api = await ApiServer.start()
    await using followed = await followOne(api)
    await api.down()
    api.pods.delete(web)
    await api.up()
    await until(() => followed.changes.length === 2)
    expect(followed.changes).toEqual(['+shop/web', '-shop/web'])
    expect(followed.cluster.pods()).toEqual([])
    expect(api.count('list')).toBe(2)
  })

  test.for(['event', 'status'] as const)('has expired (410 as %s) is begun anew by a list', async (by) => {
    await using api = await ApiServer.start()
    await using followed = await followOne(api)
    api.pods.create({ ...web, name: 'stays', uid: 'uid-1' })
    api.pods.create({ ...web, name: 'again', uid: 'first' })
    await until(() => followed.changes.length === 3)
    await api.down()
    api.pods.delete(web)
    api.pods.delete({ ...web, name: 'again' })
    api.pods.create({ ...web, name: 'again', uid: 'second' })
    api.pods.create({ ...web, name: 'new' })
    api.expire(by)
    await api.up()
    await until(() => followed.changes.length === 7)
    expect(followed.changes.slice(3)).toEqual(['-shop/web', '-shop/again', '+shop/again', '+shop/new'])
    expect(followed.cluster.pod('shop', 'again')?.uid).toBe('second')
    expect(followed.cluster.pod('shop', 'stays')?.uid).toBe('uid-1')
    expect(lines(followed, 'warn').filter(({ error }) => String(error).includes('answered 410'))).toEqual([])
    const [first, again] = api.requests.filter(({ verb, resource }) => verb === 'list' && resource === 'pods')
    expect(first?.query['resourceVersion']).toBe('0')
    expect(again?.query['resourceVersion']).toBeUndefined()
  })

  test('has had a bookmark goes on from there', async () => {
    await using api = await ApiServer.start()
    await using _followed = await followOne(api)
    const { metadata } = api.pods.create({ ...web, name: 'elsewhere', nodeName: 'node2' })
    api.bookmark()
    api.expire()
    api.dropWatches()
    await until(() => watchedFrom(api).length === 2)
    expect(watchedFrom(api).at(-1)).toBe(metadata.resourceVersion)
    expect(api.count('list')).toBe(2)
  })

  test.for([
    [
      'an error',
      (api: ApiServer) => api.watches.map((watch) => watch.send('ERROR', { kind: 'Status', code: 500 })),
    ],
    ['garbage', (api: ApiServer) => api.watches.map((watch) => watch.write('{"type":\n'))],
  ] as const)('brings %s may have lost something: a list follows', async ([, disturb]) => {
    await using api = await ApiServer.start()
    await using followed = await followOne(api)
    disturb(api)
    await until(() => api.count('list') === 4)
    await until(() => api.watches.length === 2)
    expect(followed.changes).toEqual(['+shop/web'])
  })

  test('says nothing is opened anew', async () => {
    await using api = await ApiServer.start()
    await using followed = await followOne(api, { timing: { silentMs: 100, openMs: 100 } })
    api.stall()
    api.pods.delete(web)
    await until(() => watchedFrom(api).length > 1)
    api.resume()
    await until(() => followed.changes.length === 2)
    expect(followed.changes).toEqual(['+shop/web', '-shop/web'])
    expect(api.count('list')).toBe(2)
  })
})

test('a watch that says something in time is left alone', async () => {
  using _timers = fakeTimers()
  await using api = await ApiServer.start()
  await using followed = await followOne(api, { timing: { silentMs: 1000 } })
  for (const a of ['1', '2', '3']) {
    vi.advanceTimersByTime(600)
    api.pods.update(web, { metadata: { labels: { a } } })
    await until(() => followed.cluster.pod('shop', 'web')?.labels['a'] === a)
  }
  expect(watchedFrom(api)).toHaveLength(1)
  vi.advanceTimersByTime(1000)
  await until(() => watchedFrom(api).length === 2)
})

describe.for([401, 403, 429, 500, 503])('an API server that answers %d', (status) => {
  test('at the start is asked until it recovers', async () => {
    await using api = await ApiServer.start()
    api.pods.create(web)
    api.fail({ status })
    await using followed = follow(api)
    const started = followed.cluster.start()
    await until(() => api.count('list', 'pods') > 3 && api.count('list', 'namespaces') > 3)
    expect(followed.cluster.synced).toBe(false)
    api.heal()
    await started
    expect(followed.changes).toEqual(['+shop/web'])
    await until(() => lines(followed, 'info').length === 2)
    expect(
      lines(followed, 'warn')
        .map(({ resource }) => resource)
        .toSorted(),
    ).toEqual(['namespaces', 'pods'])
    expect(lines(followed, 'warn')[0]).toMatchObject({
      message: 'cannot follow the API server',
      error: expect.stringContaining(`answered ${status}`),
      remedy: expect.any(String),
    })
    expect(lines(followed, 'info')[0]).toMatchObject({ message: 'the API server is followed again' })
  })

  test('later is asked until it recovers, and nothing is forgotten meanwhile', async () => {
    await using api = await ApiServer.start()
    await using followed = await followOne(api)
    api.fail({ status })
    api.dropWatches()
    await until(() => api.count('watch', 'pods') > 3)
    expect(followed.cluster.pod('shop', 'web')).toBeDefined()
    api.pods.update(web, { metadata: { labels: { a: '1' } } })
    api.heal()
    await until(() => followed.changes.length === 2)
    expect(followed.changes).toEqual(['+shop/web', '~shop/web'])
    expect(api.count('list')).toBe(2)
  })
})

test('a list that is refused while watches go on', async () => {
  await using api = await ApiServer.start()
  api.fail({ status: 403, verb: 'list', resource: 'namespaces' })
  await using followed = follow(api)
  const started = followed.cluster.start()
  await until(() => lines(followed, 'warn').length === 1)
  api.pods.create(web)
  await until(() => followed.cluster.pods().length === 1)
  expect(followed.cluster.synced).toBe(false)
  expect(lines(followed, 'warn')[0]?.['remedy']).toContain('the right "list namespaces"')
  api.heal()
  await started
})

/** Of what calls setTimeout() itself; sockets and promises go on. */
function fakeTimers(): Disposable {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  return { [Symbol.dispose]: () => void vi.useRealTimers() }
}
