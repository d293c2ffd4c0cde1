// SPDX-License-Identifier: Apache-2.0
/** What `npm run demo` shows, asserted: pods of a real containerd behind a bridge and macvlan, in both ambient modes. */
import { fileURLToPath } from 'node:url'
import { execa } from 'execa'
import { beforeAll, describe, expect, test } from 'vitest'
import type { Row } from '../demo/dial.ts'
import { leftoversOf } from '../demo/leftovers.ts'
import { modes, runScenario, type ScenarioResult } from '../demo/scenario.ts'
import { isAsExpected, renderRows, renderRules } from '../demo/table.ts'
import { waitFor } from '../support/exec.ts'
import { families } from '../support/mesh.ts'

describe('the scenario', () => {
  let result: ScenarioResult

  beforeAll(async () => {
    result = await runScenario()
  })

  const sides = [
    ['an enrolled', 'an enrolled', true, true],
    ['an unenrolled', 'an enrolled', false, true],
    ['an enrolled', 'an unenrolled', true, false],
  ] as const
  const onNodes = ['bridge', 'macvlan'].flatMap((chain) => modes.map((mode) => [chain, mode] as const))
  const cases = onNodes.flatMap(([chain, mode]) => sides.map((side) => [chain, mode, ...side] as const))

  test.for(cases)('[%s, %s] %s pod dials %s one', ([chain, mode, , , client, server]) => {
    const rows = find(
      (row) =>
        row.chain === chain &&
        row.mode === mode &&
        row.client.enrolled === client &&
        row.server.enrolled === server,
    )
    expectRows(rows)
  })

  test.for(['bridge > macvlan', 'macvlan > bridge'])(
    '[%s] enrolled pods of two nodes dial each other',
    (chain) => {
      expectRows(find((row) => row.chain === chain))
    },
  )

  test('no network rule of any netns has changed', () => {
    expect(result.rules).toHaveLength(19)
    for (const { of, before, after } of result.rules) {
      expect(before, of).toMatch(/nft -s list ruleset.*ip route show table all\n.*tc qdisc show dev/s)
      expect(after, of).toBe(before)
    }
  })

  test('the tables fit 150 columns, and a row that is wrong and a rule that changed stand out', () => {
    const [row, ...rest] = result.rows
    const [check] = result.rules
    if (!row || !check) throw new Error('rows and rules expected')
    expect(
      renderRows(result.rows)
        .split('\n')
        .filter((line) => line.length > 150),
    ).toEqual([])
    const wrong = { ...row, outcome: { ...row.outcome, source: '192.0.2.1' } }
    expect(isAsExpected(wrong)).toBe(false)
    expect(renderRows([wrong, ...rest])).toMatch(/192\.0\.2\.1 +WRONG$/m)
    expect(renderRows(result.rows)).not.toContain('WRONG')
    const changed = { ...check, after: `${check.after}-A OUTPUT -j REDIRECT\n` }
    expect(renderRules([changed])).toMatch(/CHANGED.*\+ -A OUTPUT -j REDIRECT/s)
  })

  function find(predicate: (row: Row) => boolean): Row[] {
    return result.rows.filter(predicate)
  }
})

function expectRows(rows: readonly Row[]): void {
  expect(rows.map(({ family }) => family)).toEqual(families.map(({ name }) => name))
  for (const { outcome, expected, family } of rows) expect(outcome, family).toEqual(expected)
}

test('the scenario leaves nothing behind', async () => {
  // The image stays until this process ends.
  const mine = (): string[] => leftoversOf(process.pid).filter((each) => !each.includes('-image'))
  await expect.poll(mine, { timeout: 5_000 }).toEqual([])
})

test.for(['two nodes', 'start the pods', 'connections'])(
  'Ctrl-C while the demo says "%s" leaves nothing behind',
  async (step) => {
    const main = fileURLToPath(new URL('../demo/main.ts', import.meta.url))
    // A group of its own: as from a terminal, all of it gets the signal.
    const demo = execa(process.execPath, [main], { detached: true, reject: false, timeout: 50_000 })
    const { pid } = demo
    if (pid === undefined) throw new Error('the demo did not start')
    let progress = ''
    demo.stderr.on('data', (chunk: Buffer) => {
      progress += chunk.toString()
    })
    await waitFor(`the demo says "${step}"`, () => progress.includes(step), { timeoutMs: 40_000 })
    await waitFor('the demo has made something', () => leftoversOf(pid).length > 3)
    process.kill(-pid, 'SIGINT')
    const { exitCode, stderr } = await demo
    expect(exitCode, stderr).toBe(130)
    await expect.poll(() => leftoversOf(pid), { timeout: 10_000 }).toEqual([])
  },
)
