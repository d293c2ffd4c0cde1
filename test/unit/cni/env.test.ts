// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest'
import { attachmentEnv, commandOf, type Env } from '../../../src/cni/env.ts'
import { envFor, failure, netConf, runInProcess } from './support.ts'

const id = 'the id of the container'
const netns = 'the path of its network namespace, such as /var/run/netns/<name>'
const ifname = 'the name of its interface, such as eth0'
const idRule = 'expected a letter or digit, then letters, digits, "_", "." or "-"'
const ifnameRule = 'expected 1 to 15 bytes without "/", ":" and blanks, not "." or ".."'
const argsRule = 'expected KEY=VALUE pairs, separated by ";"'

interface Refusal {
  readonly title: string
  readonly command?: string
  readonly env: Env
  readonly msg: string
  readonly details: string
}

const refusals: Refusal[] = [
  ...['ADD', 'CHECK'].flatMap((command) =>
    [undefined, ''].map((value) => ({
      title: `${command} with CNI_NETNS ${value === undefined ? 'missing' : 'empty'}`,
      command,
      env: { CNI_NETNS: value },
      msg: 'CNI_NETNS is not set',
      details: `${command} needs CNI_NETNS (${netns}); the container runtime sets it`,
    })),
  ),
  {
    title: 'DEL without CNI_CONTAINERID',
    command: 'DEL',
    env: { CNI_CONTAINERID: undefined },
    msg: 'CNI_CONTAINERID is not set',
    details: `DEL needs CNI_CONTAINERID (${id}); the container runtime sets it`,
  },
  {
    title: 'DEL without CNI_IFNAME',
    command: 'DEL',
    env: { CNI_IFNAME: '' },
    msg: 'CNI_IFNAME is not set',
    details: `DEL needs CNI_IFNAME (${ifname}); the container runtime sets it`,
  },
  {
    title: 'all that is missing, at once',
    env: { CNI_CONTAINERID: undefined, CNI_IFNAME: undefined, CNI_NETNS: undefined },
    msg: 'CNI_CONTAINERID, CNI_IFNAME, CNI_NETNS are not set',
    details: `ADD needs CNI_CONTAINERID (${id}), CNI_IFNAME (${ifname}), CNI_NETNS (${netns}); the container runtime sets it`,
  },
  ...['-a', '.a', 'a/b', 'a b', 'ä', 'a\n'].map((value) => ({
    title: `CNI_CONTAINERID ${JSON.stringify(value)}`,
    env: { CNI_CONTAINERID: value },
    msg: `invalid CNI_CONTAINERID: ${JSON.stringify(value)}`,
    details: idRule,
  })),
  {
    title: 'a CNI_CONTAINERID of 129 characters',
    env: { CNI_CONTAINERID: 'a'.repeat(129) },
    msg: `CNI_CONTAINERID is too long: "${'a'.repeat(77)}..."`,
    details: 'at most 128 characters are possible, found 129',
  },
  ...['.', '..'].map((value) => ({
    title: `CNI_IFNAME "${value}"`,
    env: { CNI_IFNAME: value },
    msg: `invalid CNI_IFNAME: "${value}" is not the name of an interface`,
    details: ifnameRule,
  })),
  ...['a234567890123456', 'ääääääää'].map((value) => ({
    title: `a CNI_IFNAME of 16 bytes: ${value}`,
    env: { CNI_IFNAME: value },
    msg: `invalid CNI_IFNAME: "${value}" is too long`,
    details: ifnameRule,
  })),
  ...['a/b', 'eth0:1', 'a b', 'a\tb', 'a\u00a0b', 'a\u0085b'].map((value) => ({
    title: `CNI_IFNAME ${JSON.stringify(value)}`,
    env: { CNI_IFNAME: value },
    msg: `invalid CNI_IFNAME: ${JSON.stringify(value)} has "/", ":" or a blank in it`,
    details: ifnameRule,
  })),
  ...['K8S_POD_NAME', '=cart', 'A=1;B'].map((value) => ({
    title: `CNI_ARGS "${value}"`,
    env: { CNI_ARGS: value },
    msg: `invalid CNI_ARGS: "${value.replace('A=1;', '')}" is not a pair`,
    details: argsRule,
  })),
]

test.for(refusals)('$title is refused with code 4', async ({ command = 'ADD', env, msg, details }) => {
  const error = await failure(envFor(command, env), netConf({ cniVersion: '1.0.0' }))
  expect(error).toEqual({ cniVersion: '1.0.0', code: 4, msg, details })
})

test.for([
  [undefined, 'CNI_COMMAND is not set'],
  ['', 'CNI_COMMAND is not set'],
  ...['add', 'DELETE', ' ADD', 'constructor'].map(
    (name) => [name, `unknown CNI_COMMAND: "${name}"`] as const,
  ),
] as const)('CNI_COMMAND %j is refused with code 4, before stdin is read', async ([command, msg]) => {
  const error = await failure({ ...envFor('ADD'), CNI_COMMAND: command }, netConf({ cniVersion: '1.0.0' }))
  const details = 'allowed values are ADD, DEL, CHECK, GC, STATUS, VERSION'
  expect(error).toEqual({ cniVersion: '1.1.0', code: 4, msg, details })
})

test('CNI_ARGS become a record; a value may hold "=", an empty item and a key called __proto__ do no harm', () => {
  const args = 'IgnoreUnknown=1;;A=b=c;EMPTY=;__proto__=x;'
  const parsed = attachmentEnv('ADD', envFor('ADD', { CNI_ARGS: args }), [])
  expect(Object.entries(parsed.args)).toEqual([
    ['IgnoreUnknown', '1'],
    ['A', 'b=c'],
    ['EMPTY', ''],
    ['__proto__', 'x'],
  ])
  expect(Object.getPrototypeOf(parsed.args)).toBe(Object.prototype)
})

test('names at their limits are taken: an id of 128 characters, an interface of 15 bytes', () => {
  const env = { CNI_CONTAINERID: `0${'a_.-'.repeat(31)}abc`, CNI_IFNAME: 'a23456789012345' }
  const parsed = attachmentEnv('ADD', envFor('ADD', env), [])
  expect(parsed).toMatchObject({ containerId: env.CNI_CONTAINERID, ifname: env.CNI_IFNAME })
  expect(parsed.containerId).toHaveLength(128)
})

test('DEL goes on without CNI_NETNS, with a longer id than ADD takes and with broken CNI_ARGS', async () => {
  const env = { CNI_NETNS: '', CNI_CONTAINERID: 'a'.repeat(129), CNI_ARGS: 'broken', CNI_PATH: undefined }
  const { code, stdout, requests } = await runInProcess(envFor('DEL', env), netConf())
  expect({ code, stdout }).toEqual({ code: 0, stdout: '' })
  expect(requests).toMatchObject([
    {
      command: 'DEL',
      containerId: 'a'.repeat(129),
      args: {},
      warnings: ['CNI_PATH is not set', 'invalid CNI_ARGS: "broken" is not a pair'],
    },
  ])
  expect(requests[0]).not.toHaveProperty('netns')
})

test('a missing CNI_PATH is tolerated with a warning', async () => {
  const { code, requests } = await runInProcess(envFor('ADD', { CNI_PATH: '' }), netConf())
  expect(code).toBe(0)
  expect(requests).toMatchObject([{ warnings: ['CNI_PATH is not set'] }])
})

test.for([
  ['1', true],
  ['true', true],
  ['TRUE', true],
  ['0', false],
  ['yes', false],
  ['', false],
  [undefined, false],
] as const)('CNI_NETNS_OVERRIDE %s means %s', ([value, expected]) => {
  const parsed = attachmentEnv('ADD', envFor('ADD', { CNI_NETNS_OVERRIDE: value }), [])
  expect(parsed.netnsOverride).toBe(expected)
})

test.for(['GC', 'STATUS'])('%s needs no variable but CNI_COMMAND', async (command) => {
  const { code, requests } = await runInProcess({ CNI_COMMAND: command }, netConf())
  expect(code).toBe(0)
  expect(requests).toMatchObject([{ command, warnings: [] }])
})

test('commandOf() knows the six commands of the specification', () => {
  for (const command of ['ADD', 'DEL', 'CHECK', 'GC', 'STATUS', 'VERSION']) {
    expect(commandOf({ CNI_COMMAND: command })).toBe(command)
  }
})
