// SPDX-License-Identifier: Apache-2.0
/** The agent's ZDS server and the stand-in for ztunnel: two implementations that know nothing of each other. */
import { mkdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { Netns } from '../../src/linux/netns.ts'
import { Poller } from '../../src/linux/poller.ts'
import { createLogger } from '../../src/log.ts'
import { type Workload, ZdsServer } from '../../src/zds/server.ts'
import { own } from '../support/cleanup.ts'
import { waitFor } from '../support/exec.ts'
import { Netns as TestNetns } from '../support/netns.ts'
import { type StandinOptions, ZtunnelStandin } from '../support/standin.ts'

const dir = `${tmpdir()}/ambt${process.pid}-zds-agent`
const removeDir = own({ kind: 'dir', path: dir })
const path = `${dir}/ztunnel.sock`
const log = createLogger('error', { write: () => {}, flush: async () => {} })
const info = { name: 'web-0', namespace: 'shop', serviceAccount: 'web' }

let places: TestNetns[]
let poller: Poller
let server: ZdsServer
/** What the next snapshot has. */
let workloads: Workload[]

beforeAll(async () => {
  mkdirSync(dir)
  places = [await TestNetns.create(), await TestNetns.create()]
})
afterAll(async () => {
  for (const place of places ?? []) await place.dispose()
  await removeDir()
})
beforeEach(() => {
  poller = new Poller()
  workloads = []
  server = listen()
})
afterEach(async () => {
  await server[Symbol.asyncDispose]()
  poller[Symbol.dispose]()
  for (const { netns } of workloads) netns?.[Symbol.dispose]()
})

function listen(timeoutMs = 5000): ZdsServer {
  return ZdsServer.listen({ path, poller, log, timeoutMs, snapshot: () => workloads, admit: () => {} })
}

function start(options: StandinOptions = {}): Promise<ZtunnelStandin> {
  return ZtunnelStandin.start({ zds: path, ...options })
}

function place(index: number): TestNetns {
  return places[index] as TestNetns
}

/** In the netns of this index. Disposed after the test. */
function workload(uid: string, index: number): Workload & { netns: Netns } {
  const made = { uid, info, netns: Netns.open(place(index).path) }
  workloads.push(made)
  return made
}

async function isServed(index: number): Promise<boolean> {
  const listeners = await place(index).run('ss', ['-Hltn', 'sport', '=', ':15008'])
  return listeners !== ''
}

test('the snapshot, then what changes', async () => {
  workload('a', 0)
  workloads.push({ uid: 'b', info, netns: undefined })
  await using standin = await start()
  expect(await standin.waitForSnapshot()).toMatchObject({ ready: true })
  expect(standin.zdsEvents()).toMatchObject([
    { what: 'connected' },
    { what: 'add', uid: 'a', name: 'web-0', namespace: 'shop', service_account: 'web', error: '' },
    { what: 'keep', uid: 'b' },
    { what: 'snapshot' },
  ])
  await server.add(workload('b', 1))
  expect(await isServed(1)).toBe(true)
  await server.del('a')
  expect(await isServed(0)).toBe(false)
  await server.del('a')
})

test('an agent that starts again takes over what runs, and drops what is gone meanwhile', async () => {
  workload('a', 0)
  const gone = workload('gone', 1)
  await using standin = await start()
  await standin.waitForSnapshot()
  await server[Symbol.asyncDispose]()
  await standin.waitForZds(({ what }) => what === 'disconnected')
  expect([await isServed(0), await isServed(1)]).toEqual([true, true])
  workloads = workloads.filter((each) => each !== gone)
  gone.netns[Symbol.dispose]()
  server = listen()
  expect(await standin.waitForSnapshot(2)).toMatchObject({ ready: true })
  expect([await isServed(0), await isServed(1)]).toEqual([true, false])
})

test('a second ztunnel takes over: it gets what is new, and both are told what goes', async () => {
  await using old = await start({ name: 'old' })
  await old.waitForSnapshot()
  workload('a', 0)
  await server.add(workload('b', 0))
  await using successor = await start({ name: 'new' })
  await successor.waitForAdd('b')
  await successor.waitForSnapshot()
  await server.add(workload('c', 1))
  await server.del('b')
  expect(
    old
      .zdsEvents()
      .map(({ what, uid }) => [what, uid])
      .slice(2),
  ).toEqual([
    ['add', 'b'],
    ['stopped', 'b'],
    ['del', 'b'],
  ])
  expect(successor.zdsEvents().at(-1)).toMatchObject({ what: 'del', uid: 'b' })
  await old.terminate()
  expect(await isServed(1)).toBe(true)
})

test('a refusal comes with the text of ztunnel, and the connection stays', async () => {
  await using standin = await start({ zdsNack: 'no luck today' })
  await standin.waitForSnapshot()
  await expect(server.add(workload('a', 0))).rejects.toMatchObject({
    reason: 'refused',
    message: expect.stringContaining('failure to start proxy : no luck today'),
  })
  await server.del('a')
  expect(standin.isReady()).toBe(true)
})

test('a ztunnel that does not acknowledge is dropped, and comes again', async () => {
  await server[Symbol.asyncDispose]()
  server = listen(200)
  await using standin = await start({ zdsMute: true })
  await standin.waitForZds(({ what }) => what === 'disconnected')
  await waitFor('another connection', () => standin.zdsEvents().filter(({ what }) => what === 'connected')[1])
})

test('without a ztunnel there is an error; deleting needs none', async () => {
  await expect(server.add(workload('a', 0))).rejects.toMatchObject({ reason: 'no-ztunnel' })
  await server.del('a')
})
