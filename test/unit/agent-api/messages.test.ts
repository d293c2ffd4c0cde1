// SPDX-License-Identifier: Apache-2.0
/** The messages of test/integration/agent-api.test.ts are the documented ones. */
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { agentErrors } from '../../support/agent-errors.ts'

const paths = { socket: '/run/ambridge/agent.sock', file: '/var/lib/ambridge/enrollment.json' }
const text = readFileSync(new URL('../../../docs/AGENT.md', import.meta.url), 'utf8')

/** Rows of the table, the first two cells of which are a case and a code. */
const rows = text
  .split('\n')
  .map((line) => line.split('|').map((cell) => cell.trim().replaceAll('`', '')))
  .filter(([, , code]) => /^\d+$/.test(code ?? ''))
  .map((cells) => cells.slice(1, -1))

test('docs/AGENT.md has every error of the agent, as it is printed', () => {
  const wanted = agentErrors.map(({ when, code, msg, details }) => {
    const shown = details.replaceAll('{socket}', paths.socket).replaceAll('{file}', paths.file)
    return [when, String(code), msg, shown]
  })
  expect(rows).toEqual(wanted)
})
