// SPDX-License-Identifier: Apache-2.0
/**
 * `node test/summary.ts RESULTS EXIT_CODE [FAILED_GATE...]`: what failed, and as the very last line "N passed, N failed".
 * RESULTS: vitest's JSON report; EXIT_CODE: vitest's. Exit code 1 unless something passed and nothing failed.
 */
import { existsSync, readFileSync } from 'node:fs'

/** The part of vitest's report that counts. */
interface Report {
  readonly testResults: readonly FileResult[]
}

interface FileResult {
  readonly name: string
  readonly status: string
  readonly message: string
  readonly assertionResults: readonly { readonly fullName: string; readonly status: string }[]
}

interface Summary {
  readonly passed: number
  /** One line for each failure. */
  readonly failures: readonly string[]
  readonly skipped: readonly string[]
}

/** An absent or broken report: vitest died. */
function readReport(path: string): Report | undefined {
  if (!existsSync(path)) return undefined
  try {
    return JSON.parse(readFileSync(path, 'utf8'))
  } catch {
    return undefined
  }
}

function summarize(report: Report | undefined, exitCode: number, failedGates: readonly string[]): Summary {
  const files = report?.testResults ?? []
  const named = (status: (status: string) => boolean) =>
    files.flatMap(({ assertionResults }) =>
      assertionResults.filter((test) => status(test.status)).map(({ fullName }) => fullName),
    )
  const passed = named((status) => status === 'passed').length
  const failures = [
    ...failedGates.map((gate) => `gate ${gate}`),
    ...named((status) => status === 'failed').map((name) => `test ${name}`),
    ...files.filter(failedAsAWhole).map(({ name, message }) => `file ${name}: ${firstLine(message)}`),
  ]
  const skipped = named((status) => !['passed', 'failed'].includes(status))
  const dead = deathOf(report, exitCode, passed, failures.length - failedGates.length)
  return { passed, failures: dead === undefined ? failures : [...failures, dead], skipped }
}

/** It could not be loaded, or a hook threw. */
function failedAsAWhole({ status, assertionResults }: FileResult): boolean {
  return status === 'failed' && !assertionResults.some((test) => test.status === 'failed')
}

function firstLine(text: string): string {
  return text.trim().split('\n', 1)[0] || 'a hook threw, see above'
}

/** What no single test shows. */
function deathOf(
  report: Report | undefined,
  exitCode: number,
  passed: number,
  failed: number,
): string | undefined {
  if (report === undefined) return `vitest left no report: it ended with exit code ${exitCode}`
  if (passed + failed === 0) return 'no test was run'
  if (exitCode !== 0 && failed === 0) {
    return `vitest ended with exit code ${exitCode}, though no test failed: an unhandled error, see above`
  }
  return undefined
}

function print({ passed, failures, skipped }: Summary, strict: boolean): number {
  const failed = failures.length + (strict ? skipped.length : 0)
  const lines = [
    ...failures.map((what) => `failed: ${what}`),
    ...skipped.map((name) => `skipped: test ${name}`),
    `${passed} passed, ${failed} failed`,
  ]
  process.stdout.write(`${lines.join('\n')}\n`)
  return failed === 0 && passed > 0 ? 0 : 1
}

const [path = '', exitCode = '', ...failedGates] = process.argv.slice(2)
process.exitCode = print(
  summarize(readReport(path), Number(exitCode), failedGates),
  process.env['CI'] === 'true',
)
