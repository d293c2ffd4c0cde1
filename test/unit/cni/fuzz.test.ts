// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Env } from '../../../src/cni/env.ts'
import { CniError } from '../../../src/cni/errors.ts'
import type { Handlers } from '../../../src/cni/run.ts'
import { PolicyError } from '../../../src/policy/error.ts'
import { type Answer, commands, envFor, netConf, runInProcess, versions } from './support.ts'

const numRuns = Number(process.env['FUZZ_RUNS'] ?? 2000)
const timeout = 60_000 + 5 * numRuns
/** Far above what a run takes; what hangs or grows without bound is above it. */
const patienceMs = 5_000

/** Mostly a value that makes sense. */
function mostly<T>(right: fc.Arbitrary<T>): fc.Arbitrary<unknown> {
  return fc.oneof({ weight: 9, arbitrary: right }, { weight: 1, arbitrary: fc.jsonValue({ maxDepth: 2 }) })
}

const names = fc.array(fc.constantFrom('shop', 'kube-system', ''), { maxLength: 3 })
const path = fc.constantFrom('/a', 'a', '', '/run/x.sock')
const attachments = fc.array(mostly(fc.record({ containerID: fc.string(), ifname: fc.string() })), {
  maxLength: 3,
})
const prevResult = fc.record(
  {
    cniVersion: mostly(fc.constantFrom(...versions)),
    interfaces: mostly(fc.array(fc.record({ name: fc.string(), sandbox: fc.string() }))),
    ips: mostly(fc.array(fc.record({ address: fc.ipV4(), interface: fc.integer() }))),
  },
  { requiredKeys: [] },
)
const near = fc.record(
  {
    cniVersion: mostly(fc.constantFrom(...versions, '0.2.0')),
    name: mostly(fc.constant('pods')),
    type: mostly(fc.constant('ambridge')),
    mode: mostly(fc.constantFrom('ambient', 'ambient-shared', 'sidecar')),
    enrollment: mostly(
      fc.record(
        {
          source: mostly(fc.constantFrom('agent', 'static')),
          all: mostly(fc.boolean()),
          namespaces: mostly(names),
        },
        { requiredKeys: [] },
      ),
    ),
    proxyIdentity: mostly(fc.constantFrom('cgroup', 'mark')),
    dnsCapture: mostly(fc.boolean()),
    egressGuard: mostly(fc.boolean()),
    sidecar: mostly(fc.record({ proxyUid: mostly(fc.nat()) }, { requiredKeys: [] })),
    excludeNamespaces: mostly(names),
    logLevel: mostly(fc.constantFrom('error', 'warn', 'info', 'debug')),
    logFile: mostly(path),
    bpffs: mostly(path),
    capabilities: mostly(fc.dictionary(fc.string(), fc.boolean())),
    runtimeConfig: mostly(
      fc.record({ 'io.kubernetes.cri.pod-annotations': mostly(fc.dictionary(fc.string(), fc.string())) }),
    ),
    prevResult: mostly(prevResult),
    'cni.dev/valid-attachments': mostly(attachments),
    'cni.dev/attachments': mostly(attachments),
  },
  { requiredKeys: ['cniVersion', 'name', 'type'] },
)

/** A text with some of it removed, doubled or replaced. */
const mutated = fc
  .tuple(
    near.map((config) => JSON.stringify(config)),
    fc.nat(),
    fc.nat({ max: 20 }),
    fc.oneof(
      fc.constantFrom(
        '',
        '{',
        '}',
        '[',
        ']',
        '"',
        ',',
        ':',
        '\\',
        '\u0000',
        '1e999',
        '-',
        'null',
        '"__proto__":',
      ),
      fc.string({ unit: 'binary', maxLength: 5 }),
    ),
  )
  .map(([text, at, length, insert]) => {
    const from = at % (text.length + 1)
    return text.slice(0, from) + insert + text.slice(from + length)
  })

const bytes = fc.uint8Array({ maxLength: 300 }).map((raw) => Buffer.from(raw).toString('utf8'))
const deep = fc
  .tuple(fc.constantFrom('[', '{"a":', '{"prevResult":{"a":['), fc.nat({ max: 20_000 }))
  .map(([open, depth]) => open.repeat(depth))
const stdins = fc.oneof(
  { weight: 5, arbitrary: near.map((config) => JSON.stringify(config)) },
  { weight: 5, arbitrary: mutated },
  { weight: 2, arbitrary: bytes },
  { weight: 1, arbitrary: deep },
)

const variable = fc.oneof(fc.string({ unit: 'binary' }), fc.constant(undefined))
const envs: fc.Arbitrary<Env> = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(...commands).map((command) => envFor(command)) },
  {
    weight: 1,
    arbitrary: fc
      .tuple(
        fc.constantFrom(...commands, 'ADDD', ''),
        fc.constantFrom('CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME', 'CNI_PATH', 'CNI_ARGS', 'CNI_COMMAND'),
        variable,
      )
      .map(([command, name, value]) => envFor(command, { [name]: value })),
  },
)

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
    fc.asyncProperty(envs, stdins, async (env, stdin) => {
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
