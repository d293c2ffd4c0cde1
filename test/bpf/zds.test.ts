// SPDX-License-Identifier: Apache-2.0
/** The ZDS server against a client that is written by hand. Root: nobody else is let in. */
import { closeSync, openSync } from 'node:fs'
import { expect, test } from 'vitest'
import { RemedyError } from '../../src/remedy.ts'
import { ZdsError } from '../../src/zds/error.ts'
import { run, waitFor } from '../support/exec.ts'
import { openDescriptors, ZdsField } from '../support/zds-field.ts'

const reason = (reason: string) => expect.objectContaining({ reason })
const turn = () => new Promise((resolve) => setImmediate(resolve))

test('a ztunnel that says hello gets every pod, then the end of the snapshot', async () => {
  await using field = new ZdsField()
  field.workloads = [
    field.workload('u1'),
    { ...field.workload('u2'), netns: undefined },
    field.workload('u3'),
  ]
  const ztunnel = field.connect()
  ztunnel.hello()
  expect(await ztunnel.snapshot()).toEqual([
    field.added('u1'),
    { keep: 'u2' },
    field.added('u3'),
    'snapshot sent',
  ])
  await waitFor('the log', () => field.logged('snapshot sent').length > 0)
  expect(field.log).toMatchObject([
    { level: 'info', message: 'ztunnel connected', pid: process.pid },
    { level: 'info', message: 'snapshot sent', pid: process.pid, count: 3, ms: expect.any(Number) },
  ])
  expect(field.served).toEqual(['u1', 'u3'])
  expect(field.server.connections).toBe(1)
})

test('one message is outstanding; nothing is sent before the hello', async () => {
  await using field = new ZdsField()
  field.workloads = [field.workload('u1'), field.workload('u2')]
  const [silent, slow] = [field.connect(), field.connect()]
  slow.hello()
  expect(await slow.next()).toEqual(field.added('u1'))
  // Meanwhile others get all of theirs.
  await field.ztunnel()
  expect([silent.waiting, slow.waiting]).toEqual([[], []])
  slow.ack()
  expect(await slow.next()).toEqual(field.added('u2'))
})

test('after the snapshot come the changes, each resolved by its acknowledgement', async () => {
  await using field = new ZdsField()
  const ztunnel = await field.ztunnel()
  const settled: string[] = []
  const adding = field.server.add(field.workload('u1')).then(() => settled.push('add'))
  const deleting = field.server.del('u1').then(() => settled.push('del'))
  expect(await ztunnel.next()).toEqual(field.added('u1'))
  await field.ztunnel()
  expect({ settled, waiting: ztunnel.waiting }).toEqual({ settled: [], waiting: [] })
  ztunnel.ack()
  await adding
  expect(await ztunnel.next()).toEqual({ del: 'u1' })
  expect(settled).toEqual(['add'])
  ztunnel.ack()
  await deleting
  expect(field.served).toEqual(['u1'])
})

test('a refusal during the snapshot is logged, and the snapshot goes on', async () => {
  await using field = new ZdsField()
  field.workloads = [field.workload('u1'), field.workload('u2')]
  const ztunnel = field.connect()
  ztunnel.hello()
  await ztunnel.next()
  ztunnel.ack('no room')
  expect(await ztunnel.snapshot()).toEqual([field.added('u2'), 'snapshot sent'])
  expect(field.logged('ztunnel refused a message of the snapshot')).toMatchObject([
    { level: 'warn', uid: 'u1', error: 'ztunnel refused: no room' },
  ])
  expect(field.served).toEqual(['u2'])
})

test('a refusal after it fails that pod alone', async () => {
  await using field = new ZdsField()
  const ztunnel = await field.ztunnel()
  const refused = field.server.add(field.workload('u1'))
  const taken = field.server.add(field.workload('u2'))
  await ztunnel.next()
  ztunnel.ack('no room')
  await expect(refused).rejects.toThrow(reason('refused'))
  await expect(refused).rejects.toThrow('no room')
  await ztunnel.next()
  ztunnel.ack()
  await taken
  expect(field.server.connections).toBe(1)
  expect(field.served).toEqual(['u2'])
})

test('without an acknowledgement in time the connection is closed; the next one gets a snapshot', async () => {
  await using field = new ZdsField({ timeoutMs: 100 })
  const ztunnel = await field.ztunnel()
  const adds = [field.server.add(field.workload('u1')), field.server.add(field.workload('u2'))]
  expect(await Promise.allSettled(adds)).toEqual([
    { status: 'rejected', reason: reason('timeout') },
    { status: 'rejected', reason: reason('timeout') },
  ])
  expect([await ztunnel.next(), await ztunnel.next()]).toEqual([field.added('u1'), 'end'])
  expect(field.logged('ztunnel timed out')).toMatchObject([{ level: 'warn', pid: process.pid }])
  field.workloads = [field.workload('u1')]
  await field.ztunnel()
  expect(field.served).toEqual(['u1'])
})

test('without an acknowledgement in the snapshot, too', async () => {
  await using field = new ZdsField({ timeoutMs: 100 })
  field.workloads = [field.workload('u1'), field.workload('u2')]
  const ztunnel = field.connect()
  ztunnel.hello()
  expect([await ztunnel.next(), await ztunnel.next()]).toEqual([field.added('u1'), 'end'])
  expect(field.log.map(({ message }) => message)).toEqual(['ztunnel connected', 'ztunnel timed out'])
})

test('who says no hello is put out', async () => {
  await using field = new ZdsField({ timeoutMs: 100 })
  const silent = field.connect()
  expect(await silent.next()).toBe('end')
  expect(field.logged('ztunnel timed out')).toMatchObject([
    { error: 'ztunnel did not say hello within 100 ms' },
  ])
  expect(field.log.map(({ message }) => message)).not.toContain('ztunnel connected')
})

test.for([
  ['a stray acknowledgement', '0a00'],
  ['another hello', '0801'],
  ['what is no message', 'ffff'],
] as const)('%s while nothing is outstanding ends the connection', async ([, bytes]) => {
  await using field = new ZdsField()
  const ztunnel = await field.ztunnel()
  ztunnel.send(bytes)
  expect(await ztunnel.next()).toBe('end')
  expect(field.logged('connection to ztunnel closed')).toMatchObject([{ level: 'warn', pid: process.pid }])
  await waitFor('it is forgotten', () => field.server.connections === 0)
})

test('an acknowledgement too many is not taken for that of the next message', async () => {
  await using field = new ZdsField()
  const ztunnel = await field.ztunnel()
  const [first, second] = [field.server.add(field.workload('u1')), field.server.add(field.workload('u2'))]
  await ztunnel.next()
  ztunnel.ack()
  ztunnel.ack()
  await first
  await expect(second).rejects.toThrow(reason('closed'))
  expect(await ztunnel.next()).toBe('end')
})

test.for([
  ['no acknowledgement', Buffer.from('1200', 'hex')],
  ['what cannot be decoded', Buffer.from('0aff', 'hex')],
  ['more than 1024 bytes', Buffer.from(`0a00${'10'.repeat(1023)}`, 'hex')],
] as const)('%s as an answer ends the connection', async ([, bytes]) => {
  await using field = new ZdsField()
  const ztunnel = await field.ztunnel()
  const adding = field.server.add(field.workload('u1'))
  await ztunnel.next()
  ztunnel.send(bytes)
  await expect(adding).rejects.toThrow(reason('closed'))
  expect(await ztunnel.next()).toBe('end')
})

test('a descriptor from ztunnel ends the connection, and is closed', async () => {
  await using field = new ZdsField()
  const ztunnel = await field.ztunnel()
  const adding = field.server.add(field.workload('u1'))
  await ztunnel.next()
  const fd = openSync('/dev/null', 'r')
  ztunnel.send('0a00', fd)
  closeSync(fd)
  await expect(adding).rejects.toThrow(reason('closed'))
})

test('the end of a ztunnel is noticed at once, whatever it was asked', async () => {
  await using field = new ZdsField()
  const [idle, busy] = [await field.ztunnel(), await field.ztunnel()]
  const adds = [field.server.add(field.workload('u1')), field.server.add(field.workload('u2'))]
  await busy.next()
  busy[Symbol.dispose]()
  idle[Symbol.dispose]()
  for (const adding of adds) await expect(adding).rejects.toThrow(reason('closed'))
  await waitFor('both ends', () => field.logged('ztunnel disconnected').length === 2)
  await waitFor('the last count', () => field.counts.at(-1) === 0)
  expect(field.counts).toEqual([1, 2, expect.any(Number), 0])
})

test('without a ztunnel nothing can be added, and nothing is left to delete', async () => {
  await using field = new ZdsField()
  field.connect()
  await expect(field.server.add(field.workload('u1'))).rejects.toThrow(reason('no-ztunnel'))
  await expect(field.server.add(field.workload('u1'))).rejects.toBeInstanceOf(RemedyError)
  await field.server.del('u1')
})

test('the newest is told of additions, all of deletions', async () => {
  await using field = new ZdsField()
  const [older, newer] = [await field.ztunnel(), await field.ztunnel()]
  const adding = field.server.add(field.workload('u1'))
  expect(await newer.next()).toEqual(field.added('u1'))
  newer.ack()
  await adding
  const deleting = field.server.del('u1')
  for (const ztunnel of [older, newer]) {
    expect(await ztunnel.next()).toEqual({ del: 'u1' })
    ztunnel.ack()
  }
  await deleting
})

test('the newest is who connected last, not who said hello last', async () => {
  await using field = new ZdsField()
  const [older, newer] = [field.connect(), await field.ztunnel()]
  older.hello()
  await older.snapshot()
  const adding = field.server.add(field.workload('u1'))
  expect(await newer.next()).toEqual(field.added('u1'))
  newer.ack()
  await adding
})

test('additions wait for the snapshot of the newest', async () => {
  await using field = new ZdsField()
  await field.ztunnel()
  field.workloads = [field.workload('u1')]
  const newer = field.connect()
  newer.hello()
  expect(await newer.next()).toEqual(field.added('u1'))
  const adding = field.server.add(field.workload('u2'))
  newer.ack()
  expect(await newer.snapshot()).toEqual(['snapshot sent'])
  expect(await newer.next()).toEqual(field.added('u2'))
  newer.ack()
  await adding
})

test('an upgrade: the new ztunnel takes over, and the old one leaves', async () => {
  await using field = new ZdsField()
  const old = await field.ztunnel()
  // On its way through the old one when the new one comes: so it is in that one's snapshot, too.
  const adding = field.server.add(field.workload('u1'))
  field.workloads = [field.workload('u1')]
  expect(await old.next()).toEqual(field.added('u1'))
  const young = field.connect()
  young.hello()
  expect(await young.snapshot()).toEqual([field.added('u1'), 'snapshot sent'])
  old.ack()
  await adding
  const deleting = field.server.del('u1')
  expect(await young.next()).toEqual({ del: 'u1' })
  young.ack()
  expect(await old.next()).toEqual({ del: 'u1' })
  old[Symbol.dispose]()
  await expect(deleting).rejects.toThrow(reason('closed'))
  const next = field.server.add(field.workload('u2'))
  expect(await young.next()).toEqual(field.added('u2'))
  young.ack()
  await next
})

test('when the newest ends, the one before is the newest', async () => {
  await using field = new ZdsField()
  const [older, newer] = [await field.ztunnel(), await field.ztunnel()]
  newer[Symbol.dispose]()
  await waitFor('its end', () => field.server.connections === 1)
  const adding = field.server.add(field.workload('u1'))
  await older.next()
  older.ack()
  await adding
})

test('what several ztunnels refuse to delete is told in one error', async () => {
  await using field = new ZdsField()
  const ztunnels = [await field.ztunnel(), await field.ztunnel()]
  const deleting = field.server.del('u1')
  for (const [i, ztunnel] of ztunnels.entries()) {
    await ztunnel.next()
    ztunnel.ack(`no ${i}`)
  }
  await expect(deleting).rejects.toThrow(
    expect.objectContaining({ reason: 'refused', message: 'ztunnel refused: no 0; ztunnel refused: no 1' }),
  )
})

test('a pod whose message is too long is refused, and never sent', async () => {
  await using field = new ZdsField()
  const tooLong = field.workload('u1', 'n'.repeat(1024))
  field.workloads = [tooLong, field.workload('u2')]
  const ztunnel = field.connect()
  ztunnel.hello()
  expect(await ztunnel.snapshot()).toEqual([field.added('u2'), 'snapshot sent'])
  expect(field.logged('ztunnel refused a message of the snapshot')).toMatchObject([{ uid: 'u1' }])
  await expect(field.server.add(tooLong)).rejects.toThrow(reason('refused'))
  const adding = field.server.add(field.workload('u3'))
  expect(await ztunnel.next()).toEqual(field.added('u3'))
  ztunnel.ack()
  await adding
})

test('the caller may close its netns as soon as it has handed it in', async () => {
  await using field = new ZdsField()
  const ztunnel = field.connect()
  const netns = field.netns.duplicate()
  field.workloads = [field.workload('u1'), { ...field.workload('u2'), netns }]
  ztunnel.hello()
  await ztunnel.next()
  netns[Symbol.dispose]()
  ztunnel.ack()
  expect(await ztunnel.snapshot()).toEqual([field.added('u2'), 'snapshot sent'])
  const another = field.netns.duplicate()
  const adds = [
    field.server.add(field.workload('u3')),
    field.server.add({ ...field.workload('u4'), netns: another }),
  ]
  another[Symbol.dispose]()
  for (const uid of ['u3', 'u4']) {
    expect(await ztunnel.next()).toEqual(field.added(uid))
    ztunnel.ack()
  }
  await Promise.all(adds)
})

test('a ztunnel that is 500 messages behind is disconnected; what waited is rejected, and holds no descriptor', async () => {
  await using field = new ZdsField()
  const ztunnel = await field.ztunnel()
  const before = openDescriptors()
  const add = (i: number) => field.server.add(field.workload(`u${i}`)).catch((err: ZdsError) => err.reason)
  // One is on its way before the others wait.
  const adds = [add(0)]
  await ztunnel.next()
  adds.push(...Array.from({ length: 500 }, (_, i) => add(i + 1)))
  expect(field.server.connections).toBe(1)
  expect(openDescriptors()).toBe(before + 500)
  adds.push(add(501))
  expect(await Promise.all(adds)).toEqual(adds.map(() => 'closed'))
  expect(await ztunnel.next()).toBe('end')
  // The server's end of the connection is gone, too.
  expect(openDescriptors()).toBe(before - 1)
})

test('a ztunnel that acknowledges but does not read is disconnected', async () => {
  await using field = new ZdsField()
  const ztunnel = await field.ztunnel()
  ztunnel.stopReading()
  let failure: Error | undefined
  for (let i = 0; failure === undefined && i < 10_000; i++) {
    const adding = field.server.add(field.workload('u')).catch((err) => err)
    await turn()
    // The connection may have ended.
    if (field.server.connections > 0) ztunnel.ack()
    failure = (await adding) ?? undefined
  }
  expect(failure).toMatchObject({ reason: 'closed', cause: { code: 'EAGAIN' } })
})

test('disposing rejects what is not acknowledged, ends every connection, and may come twice', async () => {
  await using field = new ZdsField()
  field.workloads = [field.workload('u1'), field.workload('u2'), field.workload('u3')]
  const [silent, ready, starting] = [field.connect(), await field.ztunnel(), field.connect()]
  starting.hello()
  await starting.next()
  const asked = [
    field.server.add(field.workload('u4')),
    field.server.add(field.workload('u5')),
    field.server.del('u1'),
  ]
  const settled = Promise.allSettled(asked)
  expect(await ready.next()).toEqual({ del: 'u1' })
  await field.server[Symbol.asyncDispose]()
  await field.server[Symbol.asyncDispose]()
  expect((await settled).map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected'])
  for (const client of [silent, ready, starting]) expect(await client.next()).toBe('end')
  await expect(field.server.add(field.workload('u6'))).rejects.toBeInstanceOf(ZdsError)
  expect(() => field.connect()).toThrow(expect.objectContaining({ code: 'ECONNREFUSED' }))
})

test('who is not admitted is refused at once, and told in the log', async () => {
  const admit = () => {
    throw new RemedyError('it is no ztunnel', 'let ztunnel alone connect')
  }
  await using field = new ZdsField({ admit })
  const client = field.connect()
  client.hello()
  expect(await client.next()).toBe('end')
  expect(field.log).toMatchObject([
    {
      level: 'warn',
      message: 'connection refused',
      error: 'it is no ztunnel',
      remedy: 'let ztunnel alone connect',
      pid: process.pid,
      uid: 0,
    },
  ])
})

test('who is not root is refused, whatever the modes of the files are', async () => {
  await using field = new ZdsField()
  await run('chmod', ['777', field.dir, field.path])
  const script = `import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(sys.argv[1])
print(len(s.recv(10)))`
  const command = [
    '--reuid=1234',
    '--regid=1234',
    '--clear-groups',
    '/usr/bin/python3',
    '-c',
    script,
    field.path,
  ]
  expect(await run('setpriv', command)).toBe('0\n')
  expect(field.logged('connection refused')).toMatchObject([{ uid: 1234, error: 'it does not run as root' }])
})

test('of many connections that say nothing, the oldest make room', async () => {
  await using field = new ZdsField()
  const ztunnel = await field.ztunnel()
  const silent = Array.from({ length: 20 }, () => field.connect())
  for (const client of silent.slice(0, 4)) expect(await client.next()).toBe('end')
  for (const client of silent.slice(4)) client.hello()
  // Of those, eight are served, the newest.
  for (const client of silent.slice(-8)) await client.snapshot()
  for (const client of [ztunnel, ...silent.slice(4, -8)]) {
    await waitFor('its end', async () => (await client.next()) === 'end')
  }
  expect(field.server.connections).toBe(8)
})

test('without descriptors nobody is let in; then they are', async () => {
  await using field = new ZdsField()
  const fillers: number[] = []
  const limit = async (soft: number | string) =>
    void (await run('prlimit', [`--pid=${process.pid}`, `--nofile=${soft}:`]))
  const before = (
    await run('prlimit', [`--pid=${process.pid}`, '--nofile', '--output=SOFT', '--noheadings'])
  ).trim()
  await limit(openDescriptors() + 50)
  try {
    expect(() => {
      for (;;) fillers.push(openSync('/dev/null', 'r'))
    }).toThrow(expect.objectContaining({ code: 'EMFILE' }))
    // For the client's end.
    closeSync(fillers.pop() ?? -1)
    const client = field.connect()
    client.hello()
    await waitFor('the failure', () => field.logged('cannot accept connections').length > 0)
    for (const fd of fillers.splice(0)) closeSync(fd)
    await client.snapshot()
  } finally {
    for (const fd of fillers) closeSync(fd)
    await limit(before)
  }
  expect(field.logged('cannot accept connections')).toMatchObject([
    { level: 'warn', error: 'accept a connection: EMFILE' },
  ])
})

test('a snapshot that cannot be made ends that connection alone', async () => {
  let failures = 1
  await using field = new ZdsField({
    snapshot: () => {
      if (failures-- > 0) throw new Error('not now')
      return []
    },
  })
  const client = field.connect()
  client.hello()
  expect(await client.next()).toBe('end')
  expect(field.logged('connection to ztunnel closed')).toMatchObject([
    { error: 'cannot serve ztunnel: not now' },
  ])
  await field.ztunnel()
})

test('a snapshot with a netns that is closed leaves no descriptor behind', async () => {
  await using field = new ZdsField()
  const netns = field.netns.duplicate()
  netns[Symbol.dispose]()
  field.workloads = [field.workload('u1'), { ...field.workload('u2'), netns }]
  const client = field.connect()
  client.hello()
  expect(await client.next()).toBe('end')
})
