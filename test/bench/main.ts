// SPDX-License-Identifier: Apache-2.0
/** `npm run bench -- [suite...] [--json] [--runs N]`: measures the bars that the project sets itself. */
import { loadavg } from 'node:os'
import { parseArgs } from 'node:util'
import { add } from './add.ts'
import { hooks } from './hooks.ts'
import { memory } from './memory.ts'
import { path } from './path.ts'
import { pods } from './pods.ts'
import { startup } from './startup.ts'
import { type Row, type Suite, table } from './stats.ts'

const suites: readonly Suite[] = [startup, add, pods, hooks, path, memory]

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
  const say = (line: string) => void process.stderr.write(`${line}\n`)
  for (const suite of chosen) {
    const begin = performance.now()
    rows.push(...(await suite.run({ runs, say })))
    const seconds = (performance.now() - begin) / 1000
    say(`${suite.name}: ${seconds.toFixed(0)} s, load average ${loadavg()[0]?.toFixed(1)}`)
  }
  process.stdout.write(json ? `${JSON.stringify(rows, null, 2)}\n` : table(rows))
}

try {
  await bench(options())
} catch (err) {
  process.stderr.write(`bench: ${err instanceof Error ? err.message : err}\n`)
  process.exitCode = 1
}
