// SPDX-License-Identifier: Apache-2.0
/** An API server in trouble is not asked all the time. */
import { once } from 'node:events'
import { createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { ApiServer } from '../../support/api-server.ts'
import { followOne } from './support.ts'

test.concurrent.for(['refused', 'answered 503', 'ended'] as const)(
  '%s for two seconds, it asks a few times only',
  async (how) => {
    await using api = await ApiServer.start()
    const timing = { minPauseMs: 100, maxPauseMs: 10_000, steadyMs: 10_000 }
    await using _followed = await followOne(api, { timing })
    const before = api.requests.length
    let attempts = 0
    if (how === 'refused') {
      await api.down()
      using _resetter = await resetConnections(api.url, () => {
        attempts += 1
      })
      await sleep(2000)
    } else {
      if (how === 'answered 503') api.fail({ status: 503 })
      using _ending = interval(() => (how === 'ended' ? api.endWatches() : api.dropWatches()), 10)
      await sleep(2000)
      attempts = api.requests.length - before
    }
    // Of pods and of namespaces, after 50, 150, 350, 750 and 1550 ms at the earliest, and one more should the sleep be long.
    expect(attempts).toBeLessThanOrEqual(12)
    expect(attempts).toBeGreaterThan(2)
  },
)

/** In the place of an API server, something that breaks every connection. */
async function resetConnections(url: string, onConnection: () => void): Promise<Disposable> {
  const server = createServer((socket) => {
    onConnection()
    socket.destroy()
  })
  server.listen(Number(new URL(url).port), '127.0.0.1')
  await once(server, 'listening')
  return { [Symbol.dispose]: () => void server.close() }
}

function interval(run: () => void, ms: number): Disposable {
  const timer = setInterval(run, ms)
  return { [Symbol.dispose]: () => clearInterval(timer) }
}
