// SPDX-License-Identifier: Apache-2.0
/** The demo: progress to stderr, tables to stdout. Exit code 1 when something is not as it should be. */
import { runScenario } from './scenario.ts'
import { isAsExpected, isUnchanged, renderRows, renderRules } from './table.ts'

const abort = new AbortController()
// Before anything is owned, so ahead of the clean-up, which ends the process.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => abort.abort())

const start = performance.now()
const seconds = (): string => ((performance.now() - start) / 1000).toFixed(1)

try {
  const progress = (step: string) => process.stderr.write(`${seconds().padStart(5)} s  ${step}\n`)
  const { rows, rules } = await runScenario({ progress, signal: abort.signal })
  process.stdout.write(`\n${renderRows(rows)}\n\n${renderRules(rules)}\n`)
  const good = rows.every(isAsExpected) && rules.every(isUnchanged)
  process.stdout.write(
    `\n${rows.length} connections in ${seconds()} s: ${good ? 'all as expected' : 'NOT as expected'}\n`,
  )
  process.exitCode = good ? 0 : 1
} catch (err) {
  // What the clean-up took away under our feet is no news.
  if (!abort.signal.aborted) throw err
  process.exitCode = 130
}
