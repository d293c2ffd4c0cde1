// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Env } from '../../../src/cni/env.ts'
import { CniError } from '../../../src/cni/errors.ts'
import type { Handlers } from '../../../src/cni/run.ts'
import { PolicyError } from '../../../src/policy/error.ts'
import { envs, stdins } from './arbitraries.ts'
import { type Answer, commands, envFor, netConf, runInProcess } from './support.ts'

const numRuns = Number(process.env['FUZZ_RUNS'] ?? 2000)
const timeout = 60_000 + 5 * numRuns
/** Far above what a run takes; what hangs or grows without bound is above it. */
const patienceMs = 5_000

const throwable = fc.oneof(
  fc.anything(),
  fc.string().map((message) => new Error(message, { cause: message })),
  fc.string({ minLength: 1 }).map((message) => new CniError(11, message, { cause: new Error('cause') })),
  fc.string().map((value) => new PolicyError('annotation', value, 'remedy')),
)

function failing(thrown: unknown): Handlers {
  const fail = async (): Promise<never> => {
    throw thrown
  }
  return { add: fail, del: fail, check: fail, gc: fail, status: fail }
}

/** What holds for every answer to whatever was asked. */
function expectWellFormed({ code, stdout, writes, errors, requests }: Answer): void {
  expect(requests.length).toBeLessThanOrEqual(1)
  if (code === 0) expect(errors).toEqual([])
  if (code === 0 && writes === 0) return
  expect(writes).toBe(1)
  const document: unknown = JSON.parse(stdout)
  expect(document).toMatchObject({ cniVersion: expect.stringMatching(/^(0\.3\.[01]|0\.4\.0|1\.[01]\.0)$/) })
  if (code === 0) return
  expect(code).toBe(1)
  expect(errors).toHaveLength(1)
  const { cniVersion: _, ...error } = document as Record<string, unknown>
  expect(error).toEqual({
    code: expect.toSatisfy((value) => Number.isInteger(value) && value > 0),
    msg: expect.stringMatching(/./s),
    details: expect.any(String),
  })
}

async function answerInTime(env: Env, stdin: string, handlers?: Partial<Handlers>): Promise<Answer> {
  const start = performance.now()
  const answer = await runInProcess(env, stdin, handlers)
  expect(performance.now() - start).toBeLessThan(patienceMs)
  return answer
}

test('whatever comes in, one JSON document or nothing goes out, and the exit code fits', {
  timeout,
}, async () => {
  let succeeded = 0
  let failed = 0
  await fc.assert(
    fc.asyncProperty(envs(envFor), stdins(['/a', 'a', '', '/run/x.sock']), async (env, stdin) => {
      const answer = await answerInTime(env, stdin)
      expectWellFormed(answer)
      const command = env['CNI_COMMAND']
      const prints = command === 'ADD' || command === 'VERSION'
      if (answer.code === 0) expect(answer.writes).toBe(prints ? 1 : 0)
      if (answer.code === 0) succeeded++
      else failed++
    }),
    { numRuns },
  )
  // Inputs that all fail, or all succeed, would prove little.
  expect(Math.min(succeeded, failed)).toBeGreaterThan(numRuns / 20)
})

test('whatever a handler throws, an error object goes out', { timeout }, async () => {
  const asked = fc.constantFrom(...commands.filter((command) => command !== 'VERSION'))
  await fc.assert(
    fc.asyncProperty(asked, throwable, async (command, thrown) => {
      const answer = await answerInTime(envFor(command), JSON.stringify(netConf()), failing(thrown))
      expect(answer.code).toBe(1)
      expectWellFormed(answer)
    }),
    { numRuns },
  )
})
