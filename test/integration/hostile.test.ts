// SPDX-License-Identifier: Apache-2.0
/**
 * The executable as nobody should call it. Whatever comes in: one JSON document or nothing on stdout, an exit code that fits,
 * no stack trace, no crash, no hang, and what is registered stays as it is.
 */
import { closeSync, mkdirSync, openSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { PodStatus, Status } from '../../installer/programs/status.ts'
import type { Env } from '../../src/cni/env.ts'
import { ambridgePath } from '../support/ambridge.ts'
import { type ExecResult, run } from '../support/exec.ts'
import { Netns } from '../support/netns.ts'
import { NodeSpace } from '../support/node-space.ts'
import { envs, stdins } from '../unit/cni/arbitraries.ts'

const atOnce = 8
const patienceMs = 20_000
const generatedCount = Math.min(4000, Number(process.env['FUZZ_RUNS'] ?? 400))
const seed = Number(process.env['FUZZ_SEED'] ?? Date.now())

interface Case {
  readonly name: string
  /** Replaces variables of a right ADD; undefined takes one away. */
  readonly env?: Env
  /** More keys of a configuration that enrolls the pod. */
  readonly conf?: object
  /** Instead of a configuration. */
  readonly stdin?: string | Uint8Array
  /** Instead of `exec "$0" < "$1"`: runs the plugin, $0, with the file $1 as stdin. */
  readonly script?: string
}

interface Outcome extends Case {
  readonly command: string
  readonly attachment: Attachment
  readonly result: ExecResult
}

interface Attachment {
  readonly containerId: string
  readonly ifname: string
}

/** Private mounts: default paths, too, are the node's own. */
let node: NodeSpace
let netns: Netns
let otherNetns: Netns
let dir: string
let server: Server
const bystander: Attachment = { containerId: 'bystander', ifname: 'eth0' }
let written = 0
const totals = { cases: 0, succeeded: 0, failed: 0 }

beforeAll(async () => {
  node = await NodeSpace.create()
  netns = await Netns.create('hostile')
  otherNetns = await Netns.create('bystander')
  dir = `${node.dir}/hostile`
  mkdirSync(dir)
  const proxy = node.cgroup.child('proxy')
  const cgroups = ['--cgroup', node.cgroup.dir, '--proxy-cgroup', proxy.dir]
  await ambridge(['load', ...cgroups, '--guard', '--sidecar'])
  await addBystander()
  server = await makeOddFiles()
})
afterAll(async () => {
  const { cases, succeeded, failed } = totals
  process.stdout.write(
    `hostile input: ${cases} cases, ${succeeded} succeeded, ${failed} refused (seed ${seed})\n`,
  )
  server?.close()
  await ambridge(['unload'])
  await netns?.dispose()
  await otherNetns?.dispose()
  await node?.stop()
})

async function makeOddFiles(): Promise<Server> {
  const pins = '/sys/fs/bpf/ambridge'
  writeFileSync(`${dir}/file`, 'x')
  await run('mkfifo', [`${dir}/fifo`])
  const links = { link: pins, dangling: `${dir}/nothing`, loop: `${dir}/loop`, netnslink: netns.path }
  for (const [name, target] of Object.entries(links)) symlinkSync(target, `${dir}/${name}`)
  mkdirSync(`${dir}/fake/maps`, { recursive: true })
  writeFileSync(`${dir}/fake/maps/settings`, '')
  mkdirSync(`${dir}/fakefifo/maps`, { recursive: true })
  await run('mkfifo', [`${dir}/fakefifo/maps/settings`])
  const listening = createServer()
  await new Promise<void>((resolve) => listening.listen(`${dir}/socket`, resolve))
  return listening
}

async function ambridge(args: readonly string[]): Promise<string> {
  const { stdout, stderr, code } = await node.inNode(ambridgePath(), args)
  if (code !== 0) throw new Error(`ambridge ${args.join(' ')}: exit code ${code}\n${stdout}${stderr}`)
  return stdout
}

/** Without how often the programs ran, which the kernel counts while anybody on the machine asks for it. */
async function status(): Promise<Status> {
  const isCount = (key: string) => key === 'runCount' || key === 'runTimeNs'
  const text = await ambridge(['status', '-o', 'json'])
  return JSON.parse(text, (key, value) => (isCount(key) ? undefined : value))
}

function rightConf(more: object = {}): object {
  const enrollment = { source: 'static', all: true }
  return { cniVersion: '1.1.0', name: 'test', type: 'ambridge', enrollment, ...more }
}

function rightEnv(command: string, more: Env = {}): Env {
  return {
    CNI_COMMAND: command,
    CNI_CONTAINERID: 'c0ffee',
    CNI_NETNS: netns.path,
    CNI_IFNAME: 'eth0',
    CNI_PATH: '/opt/cni/bin',
    CNI_ARGS: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart',
    ...more,
  }
}

async function addBystander(): Promise<void> {
  const { containerId, ifname } = bystander
  const env = { CNI_CONTAINERID: containerId, CNI_IFNAME: ifname, CNI_NETNS: otherNetns.path }
  expect(await runCase({ name: 'bystander', env })).toMatchObject({ result: { code: 0 } })
}

async function runCase({ name, env, conf, stdin, script = 'exec "$0" < "$1"' }: Case): Promise<Outcome> {
  const file = `${dir}/stdin${++written}`
  writeFileSync(file, stdin ?? JSON.stringify(rightConf(conf)))
  const complete = { ...rightEnv('ADD'), ...env }
  // No process can have a NUL in its environment.
  // Without CNI_COMMAND it would not be the plugin.
  const set = Object.entries({ ...complete, CNI_COMMAND: complete['CNI_COMMAND'] ?? '' }).flatMap(
    ([key, value]) => (value === undefined ? [] : [[key, value.replaceAll('\0', '')]]),
  )
  const options = { env: Object.fromEntries(set), timeoutMs: patienceMs }
  try {
    const result = await node.inNode('sh', ['-c', script, ambridgePath(), file], options)
    const {
      CNI_COMMAND: command = '',
      CNI_CONTAINERID: containerId = '',
      CNI_IFNAME: ifname = '',
    } = options.env
    return {
      name,
      ...(env ? { env } : {}),
      ...(conf ? { conf } : {}),
      command,
      attachment: { containerId, ifname },
      result,
    }
  } finally {
    unlinkSync(file)
  }
}

/** What is wrong with the answer; empty: nothing. */
function faultsOf({ command, result: { code, stdout, stderr } }: Outcome): string[] {
  const faults: string[] = []
  if (code !== 0 && code !== 1) faults.push(`exit code ${code}`)
  const prints = code !== 0 || command === 'ADD' || command === 'VERSION'
  if (!prints && stdout !== '') faults.push('output of a command that has none')
  if (prints && !isDocument(stdout)) faults.push('not one JSON document')
  if (code === 1 && !isErrorObject(stdout)) faults.push('not an error object')
  if (
    /^\s+at /m.test(stderr) ||
    !stderr.split('\n').every((line) => line === '' || isDocument(`${line}\n`))
  ) {
    faults.push('stderr is more than lines of the log')
  }
  return faults
}

function isDocument(text: string): boolean {
  try {
    return text.endsWith('\n') && typeof JSON.parse(text) === 'object'
  } catch {
    return false
  }
}

function isErrorObject(text: string): boolean {
  if (!isDocument(text)) return false
  const { cniVersion, code, msg, details } = JSON.parse(text)
  const isRight = Number.isInteger(code) && code > 0 && typeof details === 'string'
  return isRight && /^(0\.3\.[01]|0\.4\.0|1\.[01]\.0)$/.test(cniVersion) && /./.test(msg)
}

/** Eight at a time. After each eight, what was enrolled is withdrawn, and then all is as it was. */
async function expectHarmless(cases: readonly Case[]): Promise<Outcome[]> {
  const before = await status()
  const outcomes: Outcome[] = []
  for (let i = 0; i < cases.length; i += atOnce) {
    const batch = await Promise.all(cases.slice(i, i + atOnce).map(runCase))
    expect(
      batch.map((each) => ({ ...each, faults: faultsOf(each) })).filter(({ faults }) => faults.length > 0),
    ).toEqual([])
    await withdraw(batch)
    expect(await status(), `after ${batch.map(({ name }) => name).join('; ')}`).toEqual(before)
    outcomes.push(...batch)
  }
  const succeeded = outcomes.filter(({ result }) => result.code === 0).length
  totals.cases += outcomes.length
  totals.succeeded += succeeded
  totals.failed += outcomes.length - succeeded
  return outcomes
}

async function withdraw(batch: readonly Outcome[]): Promise<void> {
  const { pods } = await status()
  const enrolled = pods.filter(({ containerId }) => containerId !== bystander.containerId)
  const added = batch.filter(({ command, result }) => command === 'ADD' && result.code === 0)
  // Nobody is registered but whom an ADD that succeeded has enrolled.
  expect(enrolled.filter((pod) => !added.some(({ attachment }) => isOf(pod, attachment)))).toEqual([])
  for (const { containerId, ifname } of enrolled) {
    const env = { CNI_COMMAND: 'DEL', CNI_CONTAINERID: containerId, CNI_IFNAME: ifname }
    expect(await runCase({ name: 'DEL', env })).toMatchObject({ result: { code: 0 } })
  }
  // A GC with a list takes the bystander away by right.
  const collected = batch.some(({ command, result }) => command === 'GC' && result.code === 0)
  if (collected && enrolled.length === pods.length) await addBystander()
}

function isOf(pod: PodStatus, { containerId, ifname }: Attachment): boolean {
  return pod.containerId === containerId && pod.ifname === ifname
}

/** One case for each text. */
function each(name: string, texts: readonly string[], caseOf: (text: string) => Omit<Case, 'name'>): Case[] {
  return texts.map((text) => ({ name: `${name} ${JSON.stringify(text).slice(0, 60)}`, ...caseOf(text) }))
}

test(`${generatedCount} generated environments and inputs`, {
  timeout: 60_000 + 200 * generatedCount,
}, async () => {
  const files = ['file', 'link', 'dangling', 'loop', 'fifo', 'socket', 'fake', 'fakefifo'].map((name) =>
    join(dir, name),
  )
  const paths = [...files, '/sys/fs/bpf/ambridge', '/sys/fs/bpf/nothing', '/proc', '/dev/null', 'a', '']
  const generated = fc.record({ env: envs(rightEnv), stdin: stdins(paths) })
  const samples = fc.sample(generated, { numRuns: generatedCount, seed })
  const outcomes = await expectHarmless(
    samples.map((sample, i) => ({ name: `seed ${seed}, ${i}`, ...sample })),
  )
  const succeeded = outcomes.filter(({ result }) => result.code === 0).length
  expect(succeeded).toBeGreaterThan(generatedCount / 20)
  expect(outcomes.length - succeeded).toBeGreaterThan(generatedCount / 20)
})

test('raw bytes on stdin', { timeout: 60_000 }, async () => {
  const samples = fc.sample(fc.uint8Array({ maxLength: 5000 }), { numRuns: 48, seed })
  const outcomes = await expectHarmless(
    samples.map((stdin, i) => ({ name: `seed ${seed}, bytes ${i}`, stdin })),
  )
  expect(outcomes.filter(({ result }) => result.code === 0)).toEqual([])
})

test('a cgroup path leads nowhere but below the root', { timeout: 60_000 }, async () => {
  const paths = [
    ...[
      '..',
      '/..',
      '../../..',
      'a/../..',
      '.',
      '/',
      '//',
      '',
      '/.',
      './.',
      'kubepods/../..',
      `${node.cgroup.path}/..`,
    ],
    ...['a\nb', '\0', 'a\0/..', '\r\n', '\u202e', 'ü', '*', '$(reboot)', '-.slice', '.slice', '----.slice'],
    ...['x'.repeat(100_000), '/'.repeat(100_000), 'a/'.repeat(50_000), '-'.repeat(50_000).concat('.slice')],
    ...['/proc/self/root', '../../../proc/self', 'cgroup.procs', '/cgroup.procs/x'],
  ]
  const cases = each('cgroupPath', paths, (cgroupPath) => ({ conf: { runtimeConfig: { cgroupPath } } }))
  for (const { result } of await expectHarmless(cases))
    expect(JSON.parse(result.stdout).details ?? '').not.toMatch(/captured cgroup/)
})

test('pins are only where pins can be', { timeout: 60_000 }, async () => {
  const names = ['file', 'file/x', 'dangling', 'loop', 'fifo', 'socket', 'fake', 'fakefifo']
  const paths = [
    ...names.map((name) => join(dir, name)),
    ...[
      '/',
      '/proc',
      '/proc/self',
      '/proc/self/fd/0',
      '/proc/self/exe',
      '/dev/null',
      '/dev/full',
      '/sys/fs/cgroup',
      '/sys',
    ],
    ...[
      '/\0',
      '/a\nb',
      `/${'x'.repeat(5000)}`,
      '/x'.repeat(3000),
      '/..',
      '/sys/fs/bpf',
      '/sys/fs/bpf/ambridge/maps',
    ],
  ]
  for (const CNI_COMMAND of ['ADD', 'CHECK', 'STATUS', 'GC', 'DEL']) {
    const cases = each(`${CNI_COMMAND} with bpffs`, paths, (bpffs) => ({
      env: { CNI_COMMAND },
      conf: { bpffs, prevResult: {}, 'cni.dev/valid-attachments': [] },
    }))
    const failed = (await expectHarmless(cases)).filter(({ result }) => result.code !== 0)
    const mayNotFail = CNI_COMMAND === 'DEL' || CNI_COMMAND === 'GC'
    // A pod that could not be enrolled there has to be able to go.
    if (mayNotFail) expect(failed.map(({ name, result }) => [name, result.stdout])).toEqual([])
    else expect(failed).toHaveLength(paths.length)
  }
})

test('a network namespace is only what is one', { timeout: 60_000 }, async () => {
  const deleted = openSync(`${dir}/deleted`, 'w')
  unlinkSync(`${dir}/deleted`)
  const held = openSync(netns.path, 'r')
  const names = ['file', 'fifo', 'socket', 'dangling', 'loop', 'fake', 'nothing', 'file/x']
  const paths = [
    ...names.map((name) => join(dir, name)),
    ...[
      `/proc/${process.pid}/fd/${deleted}`,
      '/proc/self/ns/net',
      '/proc/self/ns/uts',
      '/proc/self/ns/mnt',
      '/proc/self/ns',
    ],
    ...[
      '/dev/zero',
      '/dev/null',
      '/dev/tty',
      '/dev/full',
      '/',
      '..',
      '.',
      'netns',
      'a\nb',
      `${netns.path}/`,
      `${netns.path}/..`,
    ],
    ...[
      '/x'.repeat(3000),
      'x'.repeat(5000),
      '\u202e',
      '/proc/0/ns/net',
      '/proc/4194305/ns/net',
      '\u0001',
      '-',
    ],
  ]
  const cases = each('CNI_NETNS', paths, (CNI_NETNS) => ({ env: { CNI_NETNS } }))
  for (const { name, result } of await expectHarmless(cases)) expect(result.code, name).toBe(1)
  const script = `export CNI_NETNS="$(printf '${dir}/\\377\\376')"; exec "$0" < "$1"`
  const right = each('a link to', [`${dir}/netnslink`, `/proc/${process.pid}/fd/${held}`], (CNI_NETNS) => ({
    env: { CNI_NETNS },
  }))
  const outcomes = await expectHarmless([{ name: 'no UTF-8', script }, ...right])
  expect(outcomes.map(({ result }) => result.code)).toEqual([1, 0, 0])
  closeSync(deleted)
  closeSync(held)
})

test('whatever an interface is called, its pod comes and goes', { timeout: 60_000 }, async () => {
  const possible = [
    ...[
      '\u0001'.repeat(15),
      '"\\{}[]<>`$;&|~',
      'é'.repeat(7),
      '🐳🐳🐳abc',
      '%'.repeat(15),
      '%2e%2e%2e%2e%2e',
      '...............',
    ],
    ...[
      '..a',
      '…',
      'eth0@2',
      'eth0@',
      '@',
      '-',
      '--help',
      '\u007f',
      '\u001b[2J',
      '\u202e',
      '*',
      '~',
      "'",
      '#',
      'a%b',
      '%25',
      'a=b',
    ],
  ]
  const impossible = [
    ...[
      '.',
      '..',
      '',
      ' ',
      'a b',
      '\t',
      '\n',
      'a\n',
      '\u00a0',
      '\u2028',
      '\ufeff',
      '/',
      'a/b',
      ':',
      'eth0:1',
      'x'.repeat(16),
      '🐳🐳🐳abcd',
    ],
    ...['x'.repeat(100_000), '\v', '\f', '\r', '\u0085', '\u3000'],
  ]
  const caseOf = (CNI_IFNAME: string) => ({ env: { CNI_IFNAME } })
  const good = await expectHarmless(each('CNI_IFNAME', possible, caseOf))
  expect(good.filter(({ result }) => result.code !== 0)).toEqual([])
  const bad = await expectHarmless(each('CNI_IFNAME', impossible, caseOf))
  expect(bad.filter(({ result }) => result.code !== 1)).toEqual([])
  // The environment has bytes; what is no UTF-8 in them reaches the plugin as U+FFFD.
  const bytes = [
    ['\\377', '\ufffd'],
    ['a\\377\\376b', 'a\ufffd\ufffdb'],
    ['\\300\\257', '\ufffd\ufffd'],
    ['a\\200', 'a\ufffd'],
  ] as const
  const odd = bytes.map(([octal, decoded]) => ({
    name: `CNI_IFNAME ${octal}`,
    env: { CNI_IFNAME: decoded },
    script: `export CNI_IFNAME="$(printf '${octal}')"; exec "$0" < "$1"`,
  }))
  await expectHarmless(odd)
})

test('container ids and arguments of all sorts', { timeout: 60_000 }, async () => {
  const ids = [
    ...[
      '__proto__',
      'constructor',
      'a'.repeat(128),
      'a'.repeat(129),
      'a'.repeat(100_000),
      '../etc',
      '-x',
      '.',
      'a/b',
      'a b',
      'a\nb',
    ],
    ...['ü', '\u202e', '%', 'a%', 'a.b', 'a:eth0', '"', '', '$(id)', 'A', '0', 'a-', 'a_', 'a..'],
  ]
  await expectHarmless(each('CNI_CONTAINERID', ids, (CNI_CONTAINERID) => ({ env: { CNI_CONTAINERID } })))
  const pod = 'K8S_POD_NAMESPACE=shop;K8S_POD_NAME='
  const args = [
    ...[
      '=',
      '=;=',
      ';;;;',
      '__proto__=x',
      'constructor=x',
      'A',
      'A=B=C',
      'A=;B=',
      '\n',
      ' ',
      'A=B;A=C',
      `${pod}a\nb`,
      `${pod}\u001b[2J`,
    ],
    ...[
      `${pod}"\\`,
      `${pod}${'x'.repeat(100_000)}`,
      `${pod}${'ü'.repeat(50_000)}`,
      'A=B;'.repeat(30_000),
      'A;'.repeat(60_000),
    ],
    ...[
      'K8S_POD_UID=../../..',
      'K8S_POD_UID=..',
      `K8S_POD_UID=${'a'.repeat(100_000)}`,
      'K8S_POD_UID=a\nb',
      'K8S_POD_UID=\u0001',
    ],
  ]
  await expectHarmless(each('CNI_ARGS', args, (CNI_ARGS) => ({ env: { CNI_ARGS } })))
  const bytes = ['\\377=\\376', `${pod}\\377`, 'K8S_POD_UID=\\377', '\\300\\200']
  await expectHarmless(
    each('CNI_ARGS', bytes, (text) => ({
      script: `export CNI_ARGS="$(printf '${text}')"; exec "$0" < "$1"`,
    })),
  )
  const variables = [
    'CNI_COMMAND',
    'CNI_CONTAINERID',
    'CNI_PATH',
    'CNI_NETNS_OVERRIDE',
    'NODE_OPTIONS',
    'LD_PRELOAD_X',
    'HOME',
    'TMPDIR',
    'LANG',
  ]
  await expectHarmless(
    each('bytes in', variables, (name) => ({
      script: `export ${name}="$(printf '\\377\\n\\001')"; exec "$0" < "$1"`,
    })),
  )
})

test('JSON that parses, or nearly', { timeout: 120_000 }, async () => {
  const open = (text: string, closing: string, depth: number, core: string) =>
    text.repeat(depth) + core + closing.repeat(depth)
  const inConf = (member: string) => JSON.stringify(rightConf()).replace(/}$/, `,${member}}`)
  const deep = 100_000
  const texts = [
    ...[
      open('[', ']', deep, ''),
      open('{"a":', '}', deep, '1'),
      '['.repeat(deep),
      '{"a":'.repeat(deep),
      ']'.repeat(deep),
    ],
    ...['prevResult', 'other', 'runtimeConfig', 'capabilities', 'cni.dev/valid-attachments', 'mode'].flatMap(
      (key) => [
        inConf(`"${key}":${open('[', ']', deep, '')}`),
        inConf(`"${key}":${open('{"a":', '}', deep, '1')}`),
        inConf(`"${key}":{"a":${open('[', ']', deep, '12345678901234567890')}}`),
      ],
    ),
    ...[
      inConf('"__proto__":{"bpffs":"/x"}'),
      inConf('"constructor":1'),
      inConf('"a":1e999999'),
      inConf('"prevResult":{"a":1e999999}'),
    ],
    ...[
      inConf(`"prevResult":{"a":${'9'.repeat(1_000_000)}}`),
      inConf(`"prevResult":{"a":0.${'0'.repeat(1_000_000)}1}`),
    ],
    ...[
      inConf('"prevResult":{"a":"\\ud800"}'),
      inConf('"\\ud800":1'),
      inConf('"name":"other"'),
      inConf('"bpffs":"/\\u0000"'),
    ],
    ...[
      '\ufeff{}',
      `${JSON.stringify(rightConf())}x`,
      JSON.stringify(rightConf()).repeat(2),
      'null',
      '0',
      '""',
      '{}',
      '[{}]',
      '\0',
      '\u0001',
    ],
    ...[
      `${JSON.stringify(rightConf())}${' '.repeat(4_000_000)}`,
      JSON.stringify(rightConf({ x: 'y'.repeat(4_300_000) })),
    ],
    JSON.stringify(rightConf({ [`${'k'.repeat(1_000_000)}`]: 1 })),
    JSON.stringify(
      rightConf({ prevResult: { ips: Array.from({ length: 50_000 }, () => ({ address: '10.0.0.1/24' })) } }),
    ),
    JSON.stringify(
      rightConf({
        prevResult: {
          ips: Array.from({ length: 50_000 }, (_, i) => ({ address: `10.0.${i >> 8}.${i & 255}/8` })),
        },
      }),
    ),
    JSON.stringify(
      rightConf({
        prevResult: {
          ips: ['x', null, 1, {}, { address: 'x' }, { address: '::1/x', interface: -1 }, { address: 1 }],
        },
      }),
    ),
    JSON.stringify(
      rightConf({ runtimeConfig: { 'io.kubernetes.cri.pod-annotations': { a: 'x'.repeat(1_000_000) } } }),
    ),
    JSON.stringify(rightConf({ excludeNamespaces: Array.from({ length: 100_000 }, (_, i) => `ns${i}`) })),
  ]
  const cases = texts.map((stdin, i) => ({ name: `text ${i}: ${stdin.slice(0, 80)}`, stdin }))
  await expectHarmless(cases)
  const bytes = [
    Buffer.from(JSON.stringify(rightConf()), 'utf16le'),
    Buffer.from('{"cniVersion":"1.0.0","name":"\xff"}', 'latin1'),
  ]
  await expectHarmless(bytes.map((stdin, i) => ({ name: `other encoding ${i}`, stdin })))
})

test('stdin that is no file with a configuration', { timeout: 60_000 }, async () => {
  const scripts = [
    ...[
      'exec "$0" <&-',
      'exec "$0" < /dev/null',
      'exec "$0" < /',
      'exec "$0" 0> /dev/null',
      'exec "$0" < /proc/self/mem',
      'exec "$0" 2>&- <&-',
    ],
    ...[
      'head -c 300000000 /dev/zero | "$0"',
      'yes | "$0"',
      'exec "$0" < /dev/zero',
      'cat "$1" /dev/zero | "$0"',
      'exec "$0" 2>/dev/full < /dev/null',
    ],
  ]
  for (const { name, result } of await expectHarmless(each('', scripts, (script) => ({ script }))))
    expect(result.code, name).toBe(1)
  const right = [
    'exec "$0" 2>&- < "$1"',
    'exec "$0" 2>/dev/full < "$1"',
    'dd if="$1" bs=1 status=none | "$0"',
    'cat "$1" | "$0"',
  ]
  for (const { name, result } of await expectHarmless(each('', right, (script) => ({ script }))))
    expect(result.code, name).toBe(0)
})

test('stdin that never ends: VERSION does not wait for it, ADD waits and does nothing', {
  timeout: 60_000,
}, async () => {
  const holding = (command: string) => ({
    name: command,
    script: `tail -f "$1" | timeout -s KILL 2 "$0"; echo " $?"`,
    env: { CNI_COMMAND: command },
  })
  const before = await status()
  const version = await runCase(holding('VERSION'))
  expect(version.result.stdout).toMatch(/^{.*}\n 0\n$/)
  const add = await runCase(holding('ADD'))
  expect(add.result.stdout).toBe(' 137\n')
  expect(await status()).toEqual(before)
})
