// SPDX-License-Identifier: Apache-2.0
/** What nobody should do to the ZDS server: it stays up, serves others, and keeps no descriptor. */
import { closeSync, openSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { registerCleanup } from '../support/cleanup.ts'
import { type Daemon, startDaemon, waitFor } from '../support/exec.ts'
import type { ZdsClient } from '../support/zds-client.ts'
import { openDescriptors, ZdsField } from '../support/zds-field.ts'

type Action =
  | { readonly do: 'connect' | 'hello' | 'ack' | 'empty' | 'leave' | 'stop reading' | 'descriptor' | 'wait' }
  | { readonly do: 'add' | 'del' }
  | { readonly do: 'send' | 'refuse'; readonly bytes: Uint8Array }

const names = [
  'connect',
  'hello',
  'ack',
  'empty',
  'leave',
  'stop reading',
  'descriptor',
  'wait',
  'add',
  'del',
] as const
const actions = fc.oneof(
  { weight: 10, arbitrary: fc.record({ do: fc.constantFrom(...names) }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('send' as const), bytes: fc.uint8Array({ maxLength: 64 }) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('send' as const),
      bytes: fc.uint8Array({ minLength: 1000, maxLength: 1100 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('refuse' as const), bytes: fc.uint8Array({ maxLength: 100 }) }),
  },
)
/** What each of several connections does, or what happens meanwhile. */
const plays = fc.array(fc.tuple(fc.nat({ max: 4 }), actions), { minLength: 1, maxLength: 40 })

class Play {
  readonly #field: ZdsField
  readonly #clients = new Map<number, ZdsClient>()

  constructor(field: ZdsField) {
    this.#field = field
  }

  async act(who: number, action: Action): Promise<void> {
    const client = this.#clients.get(who) ?? this.#field.connect()
    this.#clients.set(who, client)
    try {
      await this.#act(who, client, action)
    } catch (err) {
      // Put out already.
      expect(['EPIPE', 'ECONNRESET']).toContain((err as { code?: string }).code)
    }
  }

  async #act(who: number, client: ZdsClient, action: Action): Promise<void> {
    if (action.do === 'wait') await new Promise((resolve) => setTimeout(resolve, 1))
    if (action.do === 'hello') client.hello()
    if (action.do === 'ack') client.ack()
    if (action.do === 'refuse') client.ack(Buffer.from(action.bytes).toString('latin1').slice(0, 40))
    if (action.do === 'send') client.send(Buffer.from(action.bytes))
    if (action.do === 'empty') client.send('')
    if (action.do === 'descriptor') sendDescriptor(client)
    if (action.do === 'stop reading') client.stopReading()
    if (action.do === 'leave') this.#leave(who, client)
    // Whatever becomes of it.
    if (action.do === 'add') void this.#field.server.add(this.#field.workload('x')).catch(() => {})
    if (action.do === 'del') void this.#field.server.del('x').catch(() => {})
  }

  #leave(who: number, client: ZdsClient): void {
    client[Symbol.dispose]()
    this.#clients.delete(who)
  }
}

function sendDescriptor(client: ZdsClient): void {
  const fd = openSync('/dev/null', 'r')
  try {
    client.send('0a00', fd)
  } finally {
    closeSync(fd)
  }
}

/** Connected before: it is told of what all are told. Others may be newer. */
async function takeDel(field: ZdsField, ztunnel: ZdsClient, uid: string): Promise<void> {
  void field.server.del(uid).catch(() => {})
  for (let told = await ztunnel.next(); ; told = await ztunnel.next()) {
    expect(told).not.toBe('end')
    ztunnel.ack()
    if (typeof told === 'object' && 'del' in told && told.del === uid) return
  }
}

test('whatever some connections do, the others are served, and every descriptor is closed', {
  timeout: 120_000,
}, async () => {
  await fc.assert(
    fc.asyncProperty(plays, async (play) => {
      await using field = new ZdsField()
      field.workloads = [field.workload('u1'), { ...field.workload('u2'), netns: undefined }]
      const before = await field.ztunnel()
      const hostile = new Play(field)
      for (const [who, action] of play) await hostile.act(who, action)
      await takeDel(field, before, 'u3')
      const after = await field.ztunnel()
      const adding = field.server.add(field.workload('u4'))
      expect(await after.next()).toEqual(field.added('u4'))
      after.ack()
      await adding
      await takeDel(field, before, 'u5')
    }),
    { numRuns: 100 },
  )
})

/** Ended by the returned function, and should this test be interrupted. */
function start(field: ZdsField, mode: string): { daemon: Daemon; stop: () => Promise<void> } {
  const script = join(import.meta.dirname, '../support/runtime/zds-crowd.ts')
  const options = { logFile: join(field.dir, `${mode}.log`) }
  const daemon = startDaemon(process.execPath, [script, field.path, mode], options)
  return { daemon, stop: registerCleanup(() => daemon.stop()) }
}

/** As the agent does: again, while the ztunnel connects anew. */
async function addAgain(field: ZdsField, uid: string): Promise<void> {
  await waitFor(`${uid} is served`, () =>
    field.server.add(field.workload(uid)).then(
      () => true,
      () => false,
    ),
  )
}

test.for(['leave', 'silent'])(
  'a crowd that connects (%s) keeps no ztunnel from being served',
  async (mode) => {
    const before = openDescriptors()
    await using field = new ZdsField()
    const crowd = start(field, mode)
    try {
      await waitFor('the crowd', () => field.logged('connection ended before its hello').length > 100)
      const ztunnel = start(field, 'ztunnel')
      try {
        for (let i = 0; i < 100; i++) {
          await addAgain(field, `u${i}`)
          expect(openDescriptors()).toBeLessThan(before + 40)
        }
      } finally {
        await ztunnel.stop()
      }
      await waitFor('thousands', () => field.logged('connection ended before its hello').length > 2000, {
        timeoutMs: 30_000,
      })
      // Another one comes into the midst of it.
      const next = start(field, 'ztunnel')
      await addAgain(field, 'next').finally(next.stop)
    } finally {
      await crowd.stop()
    }
    const last = start(field, 'ztunnel')
    await addAgain(field, 'last').finally(last.stop)
  },
)

test('a crowd that says hello and is not admitted keeps no ztunnel from being served', async () => {
  let ztunnelPid = 0
  let refused = 0
  await using field = new ZdsField({
    admit: ({ pid }) => {
      if (pid === ztunnelPid) return
      refused++
      throw new Error('no ztunnel')
    },
  })
  const crowd = start(field, 'hello')
  try {
    await waitFor('the crowd', () => refused > 100)
    const ztunnel = start(field, 'ztunnel')
    ztunnelPid = ztunnel.daemon.pid
    try {
      for (let i = 0; i < 100; i++) await addAgain(field, `u${i}`)
      await waitFor('thousands', () => refused > 2000, { timeoutMs: 30_000 })
      await addAgain(field, 'after')
    } finally {
      await ztunnel.stop()
    }
  } finally {
    await crowd.stop()
  }
  // One line a second, not one for each.
  expect(field.logged('connection refused').length).toBeLessThan(refused / 50)
})
