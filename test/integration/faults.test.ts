// SPDX-License-Identifier: Apache-2.0
/**
 * Each system call of an ADD, and of a DEL, fails in turn; then what really goes wrong on nodes: full maps, full disks.
 * Whatever fails, the runtime is told, nothing half-registered stays, and the next ADD works.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { constants, tmpdir } from 'node:os'
import { dirname } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { PinnedMap } from '../../src/bpf/pinned-map.ts'
import { Store } from '../../src/bpf/store.ts'
import { pinPaths } from '../../src/linux/bpffs.ts'
import { Netns } from '../../src/linux/netns.ts'
import { ambridgePath, type CniCall, cni, tryCni } from '../support/ambridge.ts'
import { type ExecOptions, type ExecResult, tryRun } from '../support/exec.ts'
import { Mesh } from '../support/mesh.ts'
import {
  type Fault,
  type FaultResult,
  recordCalls,
  runWithFault,
  type SystemCall,
} from '../support/strace.ts'
import { tracesIn } from '../support/traces.ts'

/** All errors for each call, or one in turn. */
const isThorough = process.env['CI'] === 'true'
const errors = ['ENOENT', 'EPERM', 'ENOMEM', 'ENOSPC', 'EMFILE']
const laneCount = 4

/** Not `close`, which does not fail for these reasons, and not memory: without it Node itself ends. */
const names = [
  ...[
    'bpf',
    'setns',
    'socket',
    'getsockopt',
    'flock',
    'ioctl',
    'statfs',
    'statx',
    'newfstatat',
    'stat',
    'lstat',
  ],
  ...['openat', 'read', 'write', 'getdents64', 'readlink', 'dup3', 'access', 'faccessat2', 'uname'],
  ...['unlink', 'unlinkat', 'rename', 'renameat2', 'mkdir'],
]

const success = '{"cniVersion":"1.0.0"}\n'
const what = /^(cannot (enroll|withdraw) container |invalid CNI_NETNS: )/
const why = /\bE[A-Z]{3,}\b/

type Command = 'ADD' | 'DEL'

interface Scenario {
  readonly name: string
  readonly command: Command
  readonly conf?: object
  readonly ifname?: string
  /** Interfaces that are attached before. */
  readonly before: readonly string[]
}

const scenarios: readonly Scenario[] = [
  { name: 'ADD', command: 'ADD', before: [] },
  { name: 'ADD of a guarded pod', command: 'ADD', conf: { egressGuard: true }, before: [] },
  { name: 'ADD of a pod with a sidecar', command: 'ADD', conf: { mode: 'sidecar' }, before: [] },
  { name: 'ADD of a second interface', command: 'ADD', ifname: 'eth1', before: ['eth0'] },
  { name: 'DEL of a guarded pod', command: 'DEL', conf: { egressGuard: true }, before: ['eth0'] },
]

/** One pod, in which one case after the other is tried. */
interface Lane {
  readonly call: CniCall
  readonly command: Command
  /** What puts things back. */
  readonly undo: Command
  readonly options: ExecOptions
  traces(): string[]
  /** The traces before the command, and after it. */
  readonly before: readonly string[]
  readonly after: readonly string[]
}

interface Case extends Fault {
  readonly result: FaultResult
  /** What is not as it has to be. */
  readonly violations: readonly string[]
}

let mesh: Mesh
let dir: string

beforeAll(async () => {
  mesh = await Mesh.create({ hosts: laneCount, load: ['--guard', '--sidecar'] })
  dir = mkdtempSync(`${tmpdir()}/ambt${process.pid}-faults`)
})
afterAll(async () => {
  rmSync(dir, { recursive: true })
  await mesh?.dispose()
})

function callOf(index: number, { conf = {}, ifname = 'eth0' }: Partial<Scenario> = {}): CniCall {
  const { name, path } = mesh.host(index).netns
  const cgroupPath = `${mesh.pods.path}/pod${index}`
  mkdirSync(`${mesh.pods.dir}/pod${index}`, { recursive: true })
  const complete = { ...mesh.conf(), runtimeConfig: { cgroupPath }, ...conf }
  return { containerId: name, netns: path, ifname, conf: complete }
}

function optionsOf(
  command: Command,
  { containerId = '', netns = '', ifname = '', conf }: CniCall,
): ExecOptions {
  const attachment = { CNI_CONTAINERID: containerId, CNI_NETNS: netns, CNI_IFNAME: ifname }
  return {
    env: { CNI_COMMAND: command, ...attachment, CNI_PATH: '/opt/cni/bin' },
    input: JSON.stringify(conf),
  }
}

function tracesOf({ containerId = '', netns: path = '' }: CniCall): () => string[] {
  using netns = Netns.open(path)
  const pod = { cookie: netns.cookie(), containerIds: [containerId] }
  return () => tracesIn(mesh.bpffs, pod)
}

describe('a system call fails', () => {
  test.for(scenarios)('of $name', { timeout: 1_800_000 }, async (scenario) => {
    const lanes = await Promise.all(Array.from({ length: laneCount }, (_, i) => makeLane(i, scenario)))
    const faults = faultsOf(await callsOf(lanes[0])).values()
    const cases: Case[] = []
    const work = async (lane: Lane): Promise<void> => {
      for (const fault of faults) cases.push(await tryFault(fault, lane))
    }
    await Promise.all(lanes.map(work))
    await Promise.all(lanes.map(clear))

    const violating = cases.filter(({ violations }) => violations.length > 0)
    const failed = cases.filter(({ result }) => result.code !== 0)
    const counts = `${cases.length} cases, ${failed.length} failed, ${violating.length} violations`
    process.stdout.write(`faults of ${scenario.name}: ${counts}\n`)
    expect(violating).toEqual([])
    // Faults that hit nothing, or nobody, would prove little.
    expect(failed.length).toBeGreaterThan(cases.length / 2)
    expect(cases.filter(({ result }) => result.injected === undefined).length).toBeLessThan(cases.length / 20)
  })
})

async function makeLane(index: number, scenario: Scenario): Promise<Lane> {
  const { command } = scenario
  const undo = command === 'ADD' ? 'DEL' : 'ADD'
  const call = callOf(index, scenario)
  const traces = tracesOf(call)
  for (const ifname of scenario.before) await cni('ADD', { ...call, ifname })
  // The first time leaves a note that there may be a second interface.
  for (const each of [command, undo] as const) await cni(each, call)
  const before = traces()
  await cni(command, call)
  const after = traces()
  await cni(undo, call)
  return { call, command, undo, options: optionsOf(command, call), traces, before, after }
}

async function clear({ call, traces }: Lane): Promise<void> {
  for (const ifname of ['eth0', 'eth1']) await cni('DEL', { ...call, ifname })
  expect(traces()).toEqual([])
}

/** From where the plugin opens the netns, so that it is not Node's own start that fails, to its answer. */
async function callsOf(lane: Lane | undefined): Promise<SystemCall[]> {
  if (!lane) throw new Error('no lane')
  const calls = await recordCalls(names, [ambridgePath()], lane.options)
  await cni(lane.undo, lane.call)
  const start = calls.findIndex(({ text }) => text.includes(`"${lane.call.netns}"`))
  const end = calls.findIndex(({ text }) => text.startsWith('write(1, '))
  return calls.slice(start, end < 0 ? undefined : end).filter(({ text }) => !wakesThread.test(text))
}

/** libuv writes a 1 to an eventfd, and reads it, and ends the process when it cannot. */
const wakesThread = /^(write\(\d+, "\\1(\\0){7}", 8|read\(\d+, (0x[0-9a-f]+|"\\1(\\0){7}"), 1024)/

function faultsOf(calls: readonly SystemCall[]): Fault[] {
  // A map lists its entries in another order each time: from there on the next call is not known for sure.
  const listing = calls.findIndex(({ text }) => text.startsWith('bpf(BPF_MAP_GET_NEXT_KEY'))
  return calls.flatMap((call, i) => {
    const isSure = listing < 0 || i < listing || call.name !== 'bpf'
    const possible = errors.filter((error) => error !== 'ENOENT' || (isSure && !question.test(call.text)))
    const chosen = isThorough ? possible : [possible[i % possible.length] ?? '']
    return chosen.map((error) => ({ call, error }))
  })
}

/** ENOENT is an answer to these, and the kernel does not lie. For glibc it is the end of a directory. */
const question =
  /^(l?stat|statx|access|faccessat2|readlink|unlink|getdents64|bpf\(BPF_MAP_(LOOKUP_ELEM|GET_NEXT_KEY|DELETE_ELEM))\b/

async function tryFault(fault: Fault, lane: Lane): Promise<Case> {
  const result = await runWithFault(fault, [ambridgePath()], lane.options)
  // Threads come to their calls in another order each time: this one was not the one that was meant.
  if (result.isAstray || wakesThread.test(result.injected?.replace(/^\d+ +/, '') ?? '')) {
    await cni(lane.undo, lane.call)
    return { ...fault, result: { ...result, injected: undefined }, violations: [] }
  }
  const violations = isDeath(fault, lane)
    ? await violationsOfDeath(result, lane)
    : [...violationsOfAnswer(result, lane), ...violationsOfState(result, lane)]
  if (result.code === 1) violations.push(...(await violationsOfRetry(lane)))
  await cni(lane.undo, lane.call)
  if (!isDeepStrictEqual(lane.traces(), lane.before)) violations.push(`state after ${lane.undo}`)
  return { ...fault, result, violations }
}

/** Every second setns leads home: who cannot leave a pod's netns must not go on in it. */
function isDeath({ call }: Fault, { command }: Lane): boolean {
  return command === 'ADD' && call.name === 'setns' && call.count % 2 === 0
}

/** The runtime sees that the plugin was killed, and answers with a DEL. */
async function violationsOfDeath(
  { code, stdout }: FaultResult,
  { call, traces, before }: Lane,
): Promise<string[]> {
  const violations = code === 128 + constants.signals.SIGABRT && stdout === '' ? [] : ['not aborted']
  await cni('DEL', call)
  return isDeepStrictEqual(traces(), before) ? violations : [...violations, 'state after DEL']
}

/** A success with a result, or an error that says what and why. */
function violationsOfAnswer({ code, stdout }: FaultResult, { command }: Lane): string[] {
  if (code === 0) return stdout === (command === 'ADD' ? success : '') ? [] : ['a wrong answer']
  if (code !== 1 || !/^{.*}\n$/.test(stdout)) return ['no error object']
  const { msg, details } = JSON.parse(stdout)
  return what.test(msg) && why.test(`${msg} ${details}`) ? [] : ['what or why is not told']
}

/** A DEL that fails goes on where it can. */
function violationsOfState({ code }: FaultResult, { command, traces, before, after }: Lane): string[] {
  if (command === 'DEL' && code === 1) return []
  const [found, wanted] = [traces(), code === 0 ? after : before]
  const differing = [
    ...found.filter((each) => !wanted.includes(each)),
    ...wanted.filter((each) => !found.includes(each)),
  ]
  return differing.map((each) => `state: ${each}`)
}

async function violationsOfRetry({ command, call, traces, after }: Lane): Promise<string[]> {
  const { code, output } = await tryCni(command, call)
  if (code !== 0) return [`the next ${command}: ${JSON.stringify(output)}`]
  return isDeepStrictEqual(traces(), after) ? [] : [`state after the next ${command}`]
}

/** The plugin behind another command, which runs it: `[...through, ambridge]`. */
function runThrough(through: readonly string[], command: Command, call: CniCall): Promise<ExecResult> {
  const [file = '', ...args] = [...through, ambridgePath()]
  return tryRun(file, args, optionsOf(command, call))
}

/** In a mount namespace of its own, where `script` has changed something. */
function inMounts(script: string): string[] {
  return ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', `set -e; ${script}; exec "$0"`]
}

async function refusal(answer: Promise<ExecResult>): Promise<{ code: number; msg: string; details: string }> {
  const { code, stdout, stderr } = await answer
  expect({ code, lines: stdout.split('\n').length, stderr }).toMatchObject({ code: 1, lines: 2 })
  return JSON.parse(stdout)
}

/** Nothing is registered, and now an ADD and a DEL work. */
async function expectIntact(call: CniCall): Promise<void> {
  const traces = tracesOf(call)
  expect(traces()).toEqual([])
  await cni('ADD', call)
  expect(traces()).not.toEqual([])
  await cni('DEL', call)
  expect(traces()).toEqual([])
}

/** For those that every pod needs, see plugin.test.ts. */
describe('a map is full:', () => {
  /** Adds entries with the value of one that is there, until there is no room. Gives the keys. */
  function fill<K, V>(map: PinnedMap<K, V>, keyOf: (n: number) => K): K[] {
    const [[, value] = []] = map.entries()
    if (value === undefined) throw new Error(`no entry in ${map.path}`)
    const keys: K[] = []
    try {
      for (;;) {
        const key = keyOf(keys.length)
        map.set(key, value)
        keys.push(key)
      }
    } catch (err) {
      if ((err as NodeJS.ErrnoException).code !== 'E2BIG') throw err
      return keys
    }
  }

  /** Fills a map; the returned function makes room for so many entries. */
  function filled<K, V>(map: PinnedMap<K, V>, keyOf: (n: number) => K): (count: number) => void {
    const keys = fill(map, keyOf)
    return (count) => {
      for (const key of keys.splice(0, count)) map.delete(key)
    }
  }

  const cookie = (n: number) => 2n ** 60n + BigInt(n)
  const maps: [string, (store: Store) => (count: number) => void][] = [
    ['cgroups', ({ cgroups }) => filled(cgroups, cookie)],
    ['rules', ({ rules }) => filled(rules, cookie)],
  ]

  test.for(maps)('%s', { timeout: 120_000 }, async ([name, fillMap]) => {
    const conf = { mode: 'sidecar' }
    const bystander = callOf(1, { conf })
    const call = callOf(0, { conf })
    await cni('ADD', bystander)
    const before = tracesOf(bystander)()
    {
      using store = new Store(pinPaths(mesh.bpffs).maps)
      const makeRoom = fillMap(store)
      const { code, msg, details } = await refusal(runThrough([], 'ADD', call))
      expect({ code, msg }).toEqual({ code: 100, msg: `cannot enroll container ${call.containerId}` })
      expect(details).toMatch(new RegExp(`(update|insert into) map ${mesh.bpffs}/maps/${name}: E2BIG$`))
      expect(tracesOf(call)()).toEqual([])
      // The kernel keeps some room per CPU: what one CPU gave up another may not have yet.
      makeRoom(1000)
      await expectIntact(call)
      makeRoom(Number.POSITIVE_INFINITY)
    }
    expect(tracesOf(bystander)()).toEqual(before)
    await cni('DEL', bystander)
  })
})

describe('bpffs', () => {
  const readOnly = () =>
    inMounts(`mount --bind ${mesh.bpffs} ${mesh.bpffs}; mount -o remount,bind,ro ${mesh.bpffs}`)
  const missing = () => inMounts('mount -t tmpfs tmpfs /sys/fs/bpf')

  test('is read-only: ADD takes everything back, DEL asks to be repeated', async () => {
    const call = callOf(0)
    const { code, details } = await refusal(runThrough(readOnly(), 'ADD', call))
    expect({ code, details }).toEqual({
      code: 100,
      details: `pin ${mesh.bpffs}/netns/${call.containerId}:eth0: EROFS`,
    })
    await expectIntact(call)
    await cni('ADD', call)
    const del = await refusal(runThrough(readOnly(), 'DEL', call))
    expect(del).toMatchObject({ code: 100, msg: `cannot withdraw container ${call.containerId}` })
    expect(del.details).toContain('EROFS')
    await cni('DEL', call)
    await expectIntact(call)
  })

  test('is not mounted: ADD says so, DEL has nothing to do', async () => {
    const call = callOf(0)
    const { code, details } = await refusal(runThrough(missing(), 'ADD', call))
    expect(code).toBe(11)
    expect(details).toMatch(/^bpffs is not mounted: \/sys\/fs\/bpf is on another file system; mount it: /)
    expect(await runThrough(missing(), 'DEL', call)).toMatchObject({ code: 0, stdout: '' })
    await expectIntact(call)
  })
})

describe('the disk is full', () => {
  test('of the log: the pod is enrolled, and stderr tells', async () => {
    const log = `${dir}/log`
    mkdirSync(log)
    const full = inMounts(
      `mount -t tmpfs -o size=8k tmpfs ${log}; ! cat /dev/zero > ${log}/full 2> ${log}/no`,
    )
    const call = callOf(0, { conf: { logLevel: 'info', logFile: `${log}/cni.log` } })
    const { code, stdout, stderr } = await runThrough(full, 'ADD', call)
    expect({ code, stdout }).toEqual({ code: 0, stdout: success })
    expect(stderr).toContain('"message":"enrolled"')
    expect(stderr).toMatch(/"cannot write the log file".*ENOSPC/)
    await cni('DEL', call)
    await expectIntact(call)
  })

  test('of stdout: the exit code tells the runtime, whose DEL takes everything back', async () => {
    const call = callOf(0)
    const answer = await runThrough(['sh', '-c', 'exec "$0" > /dev/full'], 'ADD', call)
    expect(answer).toMatchObject({ code: 1, stdout: '' })
    expect(answer.stderr).toMatch(/ENOSPC.*cannot write to stdout/)
    await cni('DEL', call)
    await expectIntact(call)
  })
})

test('nowhere can a library be mapped: the error names the places and the remedy', async () => {
  const place = dirname(ambridgePath())
  const through = inMounts(
    `mount -o remount,bind,noexec /dev/shm; mount --bind ${place} ${place}; mount -o remount,bind,ro ${place}`,
  )
  const call = callOf(0)
  const { msg, details } = await refusal(runThrough(through, 'ADD', call))
  expect(`${msg} ${details}`).toMatch(/cannot map \S+ from \/dev\/shm or .*: install \S+ in /)
  await expectIntact(call)
})

test('whatever number of descriptors is allowed, the pod is registered whole or not at all', async () => {
  const call = callOf(0)
  const traces = tracesOf(call)
  await cni('ADD', call)
  const whole = traces()
  await cni('DEL', call)
  const codes: number[] = []
  // Node itself needs about twenty.
  for (let count = 24; count <= 56; count++) {
    const { code, stdout } = await runThrough(['prlimit', `--nofile=${count}`], 'ADD', call)
    codes.push(code)
    if (code === 1)
      expect(JSON.parse(stdout)).toMatchObject({
        msg: expect.stringMatching(/./),
        details: expect.stringMatching(why),
      })
    expect(traces(), `${count} descriptors`).toEqual(code === 0 ? whole : [])
    await cni('DEL', call)
  }
  expect(new Set(codes)).toEqual(new Set([1, 0]))
})
