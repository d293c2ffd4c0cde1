// SPDX-License-Identifier: Apache-2.0
import { lstatSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { execa } from 'execa'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createLogger, type Entry, type Fields, type Level, type Sink, winstonSink } from '../../src/log.ts'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(`${tmpdir()}/log-`)
})
afterEach(() => rmSync(dir, { recursive: true }))

const levels = ['error', 'warn', 'info', 'debug'] as const

/** A sink that remembers. */
function memory(): Sink & { readonly entries: Entry[] } {
  const entries: Entry[] = []
  return { entries, write: (entry) => void entries.push(entry), flush: async () => undefined }
}

function parsed(lines: string): Record<string, unknown>[] {
  return lines
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line))
}

test.for<[Level, readonly string[]]>([
  ['error', ['error']],
  ['warn', ['error', 'warn']],
  ['info', ['error', 'warn', 'info']],
  ['debug', levels],
])('level %s writes %j', ([level, expected]) => {
  const sink = memory()
  const log = createLogger(level, sink)
  for (const asked of levels) log[asked]('captured')
  expect(sink.entries.map((entry) => entry.level)).toEqual(expected)
  expect(levels.filter((asked) => log.enabled(asked))).toEqual(expected)
})

test('with() adds fields to every entry, and the fields of an entry win', () => {
  const sink = memory()
  const log = createLogger('info', sink, { node: 'n1' }).with({ pod: 'shop/cart', try: 1 })
  log.info('captured', { try: 2 })
  expect(sink.entries).toEqual([
    { node: 'n1', pod: 'shop/cart', try: 2, level: 'info', message: 'captured', time: expect.any(String) },
  ])
  expect(Date.parse(sink.entries[0]?.time ?? '')).not.toBeNaN()
})

test('no field takes the place of level, message or time', () => {
  const sink = memory()
  createLogger('info', sink).warn('captured', { level: 'debug', message: 'x', time: 'never' })
  expect(sink.entries).toMatchObject([{ level: 'warn', message: 'captured' }])
  expect(sink.entries[0]?.time).not.toBe('never')
})

const circular = new Error('round')
circular.cause = circular

test.for<[unknown, unknown]>([
  [18446744073709551615n, '18446744073709551615'],
  [new Error('a'), 'a'],
  [new Error('a', { cause: new Error('b', { cause: 5n }) }), 'a: b: 5'],
  [new Error('a', { cause: Object.create(null) }), expect.stringMatching(/^a: /)],
  [new Error('a', { cause: Symbol('s') }), expect.stringMatching(/^a: /)],
  [circular, expect.stringMatching(/^round: round/)],
  [
    ['a', 1],
    ['a', 1],
  ],
  [undefined, undefined],
])('a value of %o is logged', ([value, expected]) => {
  const sink = memory()
  createLogger('info', sink).info('captured', { value })
  expect(sink.entries.map((entry) => entry['value'])).toEqual([expected])
})

/** Logs to stderr, which is kept, and to a file. */
async function logged(
  file: string,
  write: (log: ReturnType<typeof createLogger>) => void,
): Promise<string[]> {
  const lines: string[] = []
  const log = createLogger('info', winstonSink({ file, stderr: (line) => void lines.push(line) }))
  write(log)
  await log.flush()
  return lines
}

test('an entry is one JSON line on stderr and the same in the file, whose folder is made', async () => {
  const file = `${dir}/new/folder/cni.log`
  const lines = await logged(file, (log) => {
    log.info('captured', { pod: 'shop/cart', note: 'two\nlines ä€' })
    log.warn('refused', { nested: { cookie: 1n }, reason: new Error('E2BIG') })
  })
  expect(readFileSync(file, 'utf8')).toBe(lines.join(''))
  expect(parsed(lines.join(''))).toMatchObject([
    { level: 'info', message: 'captured', pod: 'shop/cart', note: 'two\nlines ä€' },
    { level: 'warn', message: 'refused', reason: 'E2BIG' },
  ])
  expect(lines).toHaveLength(2)
  expect(statSync(file).mode & 0o777).toBe(0o640)
})

test('a file is appended to, and a logger goes on after flush()', async () => {
  const file = `${dir}/cni.log`
  writeFileSync(file, 'before\n')
  const log = createLogger('info', winstonSink({ file, stderr: () => undefined }))
  log.info('one')
  await log.flush()
  log.info('two')
  await log.flush()
  await log.flush()
  const [before, ...rest] = readFileSync(file, 'utf8').split('\n')
  expect(before).toBe('before')
  expect(parsed(rest.join('\n'))).toMatchObject([{ message: 'one' }, { message: 'two' }])
})

test('a circular field does not harm the log', async () => {
  const round: Record<string, unknown> = {}
  round['self'] = round
  const lines = await logged(`${dir}/cni.log`, (log) => log.info('captured', { round } satisfies Fields))
  expect(parsed(lines.join(''))).toMatchObject([{ message: 'captured' }])
})

test('a file that cannot be written is told once on stderr, and everything else goes on', async () => {
  const lines = await logged(dir, (log) => {
    log.info('one')
    log.info('two')
  })
  expect(parsed(lines.join(''))).toMatchObject([
    { message: 'one' },
    {
      level: 'warn',
      message: 'cannot write the log file',
      file: dir,
      error: expect.stringContaining('EISDIR'),
    },
    { message: 'two' },
  ])
})

test('a symbolic link in the place of the file is not followed', async () => {
  writeFileSync(`${dir}/target`, '')
  symlinkSync(`${dir}/target`, `${dir}/cni.log`)
  const lines = await logged(`${dir}/cni.log`, (log) => log.info('one'))
  expect(parsed(lines.join(''))).toMatchObject([
    { message: 'one' },
    { error: expect.stringContaining('ELOOP') },
  ])
  expect(readFileSync(`${dir}/target`, 'utf8')).toBe('')
  expect(lstatSync(`${dir}/cni.log`).isSymbolicLink()).toBe(true)
})

test('a FIFO in the place of the file does not hold up a pod', async () => {
  await execa('mkfifo', [`${dir}/cni.log`], { timeout: 5_000 })
  const lines = await logged(`${dir}/cni.log`, (log) => log.info('one'))
  expect(parsed(lines.join(''))).toMatchObject([
    { message: 'one' },
    { error: expect.stringContaining('ENXIO') },
  ])
})

test('a stderr that is closed harms neither the file nor the one who logs', async () => {
  const file = `${dir}/cni.log`
  const stderr = () => {
    throw new Error('EPIPE')
  }
  const log = createLogger('info', winstonSink({ file, stderr }))
  log.info('one')
  await log.flush()
  expect(parsed(readFileSync(file, 'utf8'))).toMatchObject([{ message: 'one' }])
})

/** A process that logs at level warn; prints how many modules of winston it loaded. */
async function run(statement: string): Promise<{ stdout: string; stderr: string }> {
  const script = `
    import { registerHooks } from 'node:module'
    let loaded = 0
    registerHooks({ load: (url, context, next) => { if (url.includes('/winston/')) loaded++; return next(url, context) } })
    const { createLogger, winstonSink } = await import(${JSON.stringify(new URL('../../src/log.ts', import.meta.url).href)})
    const log = createLogger('warn', winstonSink({}))
    ${statement}
    await log.flush()
    process.stdout.write(String(loaded))`
  return execa(process.execPath, ['--input-type=module', '-e', script], { timeout: 20_000 })
}

test('a process that writes no entry never loads winston', async () => {
  expect(await run(`log.info('captured')`)).toMatchObject({ stdout: '0', stderr: '' })
})

test('a process that writes one loads it, and writes to stderr, not to stdout', async () => {
  const { stdout, stderr } = await run(`log.warn('refused')`)
  expect(Number(stdout)).toBeGreaterThan(0)
  expect(parsed(stderr)).toMatchObject([{ level: 'warn', message: 'refused' }])
})
