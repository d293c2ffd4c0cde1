// SPDX-License-Identifier: Apache-2.0
/** Whole-process wall time of the plugin, installed as on a node, against `node -e 0` of the very Node that is inside it. */
// biome-ignore lint/style/noRestrictedImports: execa's own time would be measured, too
import { spawnSync } from 'node:child_process'
import { closeSync, existsSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { Cgroup } from '../support/cgroup.ts'
import { registerCleanup } from '../support/cleanup.ts'
import { tryRun } from '../support/exec.ts'
import { Netns } from '../support/netns.ts'
import { install } from './installed.ts'
import { type Measure, race, type Suite, type SuiteOptions } from './stats.ts'

const root = resolve(import.meta.dirname, '../..')
const built = join(root, 'dist/ambridge')
const node = join(root, `node_modules/node-linux-${process.arch}/bin/node`)
const podAddress = '10.98.0.2/24'

interface Command {
  readonly file: string
  readonly args?: readonly string[]
  /** All of the environment. */
  readonly env?: Readonly<Record<string, string>>
  /** Path of the file that stdin reads; /dev/null unless told otherwise. */
  readonly stdin?: string
}

interface AddCommand extends AsyncDisposable {
  readonly add: Command
  /** Undoes `add`. */
  readonly del: Command
}

const nothing: Command = { file: node, args: ['-e', '0'] }

export const startup: Suite = {
  name: 'startup',
  run: async ({ runs, say }) => {
    if (!existsSync(built)) throw new Error(`${built} does not exist: npm run build makes it`)
    const rounds = { runs, warmups: 3 }
    await using plugin = await install()
    const version = { file: plugin.file, env: { CNI_COMMAND: 'VERSION' } }
    const versionGoal = { id: 'startup/version', unit: 'ms', target: 1.1 }
    const rows = [await race(versionGoal, timing(version), timing(nothing), rounds)]
    await using alone = await addCommand(plugin.file, say)
    if (alone === undefined) return rows
    const goal = { id: 'startup/add', unit: 'ms', target: 1.25 }
    rows.push(await race(goal, timingAdd(alone), timing(nothing), rounds))
    return rows
  },
}

/** ADD alone: what it did is taken back each time. */
function timingAdd({ add, del }: AddCommand): Measure {
  return () => {
    const ms = time(add)
    time(del)
    return ms
  }
}

let prepared = 0

/**
 * ADD with static enrollment: netns, cgroup and programs are the benchmark's own. Undefined where the programs cannot be loaded.
 */
async function addCommand(executable: string, say: SuiteOptions['say']): Promise<AddCommand | undefined> {
  await using made = new AsyncDisposableStack()
  const cgroup = made.use(Cgroup.create())
  const bpffs = `/sys/fs/bpf/ambridge-bench-${process.pid}-${++prepared}`
  made.defer(registerCleanup(async () => void (await tryRun(executable, ['unload', '--bpffs', bpffs]))))
  const { code, stderr } = await tryRun(executable, ['load', '--bpffs', bpffs, '--cgroup', cgroup.dir])
  if (code !== 0) {
    say(`startup/add left out, no programs to enroll with: ${stderr.split('\n')[0]}`)
    return undefined
  }
  const netns = made.use(await podNetns())
  const folder = mkdtempSync(join(tmpdir(), 'ambridge-bench-'))
  made.defer(() => rmSync(folder, { recursive: true }))
  const stdin = join(folder, 'stdin.json')
  writeFileSync(stdin, JSON.stringify(networkConfig(netns.path, bpffs)))
  const command = (name: string): Command => ({ file: executable, env: attachment(name, netns.path), stdin })
  const owned = made.move()
  return { add: command('ADD'), del: command('DEL'), [Symbol.asyncDispose]: () => owned.disposeAsync() }
}

async function podNetns(): Promise<Netns> {
  const netns = await Netns.create('bench')
  await netns.ip([
    'link add eth0 type veth peer name peer0',
    `addr add ${podAddress} dev eth0`,
    'link set eth0 up',
  ])
  return netns
}

function networkConfig(netns: string, bpffs: string) {
  const cniVersion = '1.1.0'
  const interfaces = [{ name: 'eth0', sandbox: netns }]
  const prevResult = { cniVersion, interfaces, ips: [{ address: podAddress, interface: 0 }] }
  const enrollment = { source: 'static', all: true }
  return { cniVersion, name: 'bench', type: 'ambridge', enrollment, bpffs, prevResult }
}

function attachment(command: string, netns: string): Record<string, string> {
  return {
    CNI_COMMAND: command,
    CNI_CONTAINERID: 'bench',
    CNI_NETNS: netns,
    CNI_IFNAME: 'eth0',
    CNI_PATH: '/opt/cni/bin',
    CNI_ARGS: 'K8S_POD_NAMESPACE=bench;K8S_POD_NAME=bench',
  }
}

function timing(command: Command): Measure {
  return () => time(command)
}

/** Milliseconds from spawn to exit. Throws unless the exit code is 0. */
function time({ file, args = [], env = {}, stdin = '/dev/null' }: Command): number {
  const input = openSync(stdin, 'r')
  try {
    const begin = process.hrtime.bigint()
    const { status, error } = spawnSync(file, args, { env, stdio: [input, 'ignore', 'ignore'] })
    const end = process.hrtime.bigint()
    if (status !== 0) throw new Error(`${file}: ${error?.message ?? `exit code ${status}`}`)
    return Number(end - begin) / 1e6
  } finally {
    closeSync(input)
  }
}
