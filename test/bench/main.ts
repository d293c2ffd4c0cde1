// SPDX-License-Identifier: Apache-2.0
/** `npm run bench -- [suite...] [--json] [--runs N]`: measures the bars that the project sets itself. */
import { parseArgs } from 'node:util'
import { startup } from './startup.ts'
import { type Row, type Suite, table } from './stats.ts'

const suites: readonly Suite[] = [startup]

interface Options {
  readonly chosen: readonly Suite[]
  readonly json: boolean
  readonly runs: number
}

/** Throws an error with a message for the user. */
function options(): Options {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { json: { type: 'boolean', default: false }, runs: { type: 'string', default: '40' } },
  })
  const runs = Number(values.runs)
  if (!Number.isInteger(runs) || runs < 1) throw new Error(`--runs ${values.runs}: expected a count from 1`)
  const chosen = positionals.length === 0 ? suites : positionals.map(suiteNamed)
  return { chosen, json: values.json, runs }
}

function suiteNamed(name: string): Suite {
  const suite = suites.find((one) => one.name === name)
  if (suite !== undefined) return suite
  throw new Error(`unknown suite ${name}: there are ${suites.map((one) => one.name).join(', ')}`)
}

async function bench({ chosen, json, runs }: Options): Promise<void> {
  const rows: Row[] = []
  for (const suite of chosen) {
    rows.push(...(await suite.run({ runs, say: (line) => process.stderr.write(`${line}\n`) })))
  }
  process.stdout.write(json ? `${JSON.stringify(rows, null, 2)}\n` : table(rows))
}

try {
  await bench(options())
} catch (err) {
  process.stderr.write(`bench: ${err instanceof Error ? err.message : err}\n`)
  process.exitCode = 1
}
