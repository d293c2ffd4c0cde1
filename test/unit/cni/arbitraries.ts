// SPDX-License-Identifier: Apache-2.0
/** Generators of what a container runtime could hand over, right or wrong. */
import fc from 'fast-check'
import type { Env } from '../../../src/cni/env.ts'
import { commands, versions } from './support.ts'

/** Mostly a value that makes sense. */
function mostly<T>(right: fc.Arbitrary<T>): fc.Arbitrary<unknown> {
  return fc.oneof({ weight: 9, arbitrary: right }, { weight: 1, arbitrary: fc.jsonValue({ maxDepth: 2 }) })
}

const names = fc.array(fc.constantFrom('shop', 'kube-system', ''), { maxLength: 3 })
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

/** Network configurations, right or nearly so. `paths`: of log files and pins. */
function configs(paths: readonly string[]): fc.Arbitrary<object> {
  const path = fc.constantFrom(...paths)
  return fc.record(
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
        fc.record(
          {
            cgroupPath: mostly(fc.string()),
            'io.kubernetes.cri.pod-annotations': mostly(fc.dictionary(fc.string(), fc.string())),
          },
          { requiredKeys: [] },
        ),
      ),
      prevResult: mostly(prevResult),
      'cni.dev/valid-attachments': mostly(attachments),
      'cni.dev/attachments': mostly(attachments),
    },
    { requiredKeys: ['cniVersion', 'name', 'type'] },
  )
}

/** A text with some of it removed, doubled or replaced. */
function mutated(texts: fc.Arbitrary<string>): fc.Arbitrary<string> {
  const insert = fc.oneof(
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
  )
  return fc.tuple(texts, fc.nat(), fc.nat({ max: 20 }), insert).map(([text, at, length, inserted]) => {
    const from = at % (text.length + 1)
    return text.slice(0, from) + inserted + text.slice(from + length)
  })
}

const bytes = fc.uint8Array({ maxLength: 300 }).map((raw) => Buffer.from(raw).toString('utf8'))
const deep = fc
  .tuple(fc.constantFrom('[', '{"a":', '{"prevResult":{"a":['), fc.nat({ max: 20_000 }))
  .map(([open, depth]) => open.repeat(depth))

/** What is on stdin. `paths`: of log files and pins, absolute ones and others. */
export function stdins(paths: readonly string[]): fc.Arbitrary<string> {
  const texts = configs(paths).map((config) => JSON.stringify(config))
  return fc.oneof(
    { weight: 5, arbitrary: texts },
    { weight: 5, arbitrary: mutated(texts) },
    { weight: 2, arbitrary: bytes },
    { weight: 1, arbitrary: deep },
  )
}

const variables = ['CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME', 'CNI_PATH', 'CNI_ARGS', 'CNI_COMMAND']
const value = fc.oneof(fc.string({ unit: 'binary' }), fc.constant(undefined))

/** Environments, right or with one variable that is not. `envFor`: the right one, with `more` in it. */
export function envs(envFor: (command: string, more?: Env) => Env): fc.Arbitrary<Env> {
  const wrong = fc.tuple(fc.constantFrom(...commands, 'ADDD', ''), fc.constantFrom(...variables), value)
  return fc.oneof(
    { weight: 4, arbitrary: fc.constantFrom(...commands).map((command) => envFor(command)) },
    { weight: 1, arbitrary: wrong.map(([command, name, given]) => envFor(command, { [name]: given })) },
  )
}
