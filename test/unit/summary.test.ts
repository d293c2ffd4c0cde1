// SPDX-License-Identifier: Apache-2.0
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { execa } from 'execa'
import { afterAll, beforeAll, expect, test } from 'vitest'

const script = fileURLToPath(new URL('../summary.ts', import.meta.url))
let dir = ''

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'ambridge-summary-'))
})
afterAll(() => rmSync(dir, { recursive: true }))

interface Run {
  readonly statuses?: readonly string[]
  readonly fileStatus?: string
  /** Instead of a report. */
  readonly text?: string
  readonly exitCode?: number
  readonly gates?: readonly string[]
  readonly ci?: boolean
}

/** What the script prints and answers for a report of one file. */
async function summaryOf({
  statuses = [],
  fileStatus = 'passed',
  text,
  exitCode = 0,
  gates = [],
  ci = false,
}: Run) {
  const assertionResults = statuses.map((status, i) => ({ fullName: `number ${i}`, status }))
  const file = { name: 'a.test.ts', status: fileStatus, message: 'boom\nat line 1', assertionResults }
  const path = join(dir, 'results.json')
  writeFileSync(path, text ?? JSON.stringify({ testResults: [file] }))
  const args = [script, path, String(exitCode), ...gates]
  const { stdout, exitCode: code } = await execa(process.execPath, args, {
    env: { CI: String(ci) },
    reject: false,
    timeout: 20_000,
  })
  const lines = stdout.split('\n')
  return { code, last: lines.at(-1), lines }
}

test('the last line counts what passed and what failed', async () => {
  const { code, last } = await summaryOf({ statuses: ['passed', 'failed', 'passed'], exitCode: 1 })
  expect({ code, last }).toEqual({ code: 1, last: '2 passed, 1 failed' })
})

test('exit code 0 when all passed', async () => {
  expect(await summaryOf({ statuses: ['passed'] })).toMatchObject({ code: 0, last: '1 passed, 0 failed' })
})

test('a failed gate is one failure, named', async () => {
  const { code, last, lines } = await summaryOf({ statuses: ['passed'], gates: ['types', 'lint'] })
  expect({ code, last }).toEqual({ code: 1, last: '1 passed, 2 failed' })
  expect(lines).toContain('failed: gate lint')
})

test('a file that could not be loaded is one failure, with its reason', async () => {
  const { code, last, lines } = await summaryOf({ fileStatus: 'failed', exitCode: 1 })
  expect({ code, last }).toEqual({ code: 1, last: '0 passed, 1 failed' })
  expect(lines).toContain('failed: file a.test.ts: boom')
})

test('a hook that throws after the tests is one failure', async () => {
  const run = await summaryOf({ statuses: ['passed'], fileStatus: 'failed', exitCode: 1 })
  expect(run).toMatchObject({ code: 1, last: '1 passed, 1 failed' })
})

test.for(['skipped', 'pending', 'todo'])(
  'a %s test is listed, and counts as failed in CI',
  async (status) => {
    const here = await summaryOf({ statuses: ['passed', status] })
    expect(here).toMatchObject({ code: 0, last: '1 passed, 0 failed' })
    expect(here.lines).toContain('skipped: test number 1')
    const inCi = await summaryOf({ statuses: ['passed', status], ci: true })
    expect(inCi).toMatchObject({ code: 1, last: '1 passed, 1 failed' })
  },
)

test.for([
  ['died before its report', { text: '', exitCode: 137 }],
  ['broke off in the middle of its report', { text: '{"testResults": [', exitCode: 1 }],
  ['ran no test', { statuses: [] }],
  ['met an unhandled error', { statuses: ['passed'], exitCode: 1 }],
] as const)('a vitest that %s is one failure', async ([, run]) => {
  const { code, last } = await summaryOf(run)
  expect(code).toBe(1)
  expect(last).toMatch(/, 1 failed$/)
})
