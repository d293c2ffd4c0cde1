// SPDX-License-Identifier: Apache-2.0
/** Whole-process wall time of the plugin against `node -e 0` of the very Node that is inside it. */
// biome-ignore lint/style/noRestrictedImports: execa's own time would be measured, too
import { spawnSync } from 'node:child_process'
import { closeSync, existsSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { registerCleanup } from '../support/cleanup.ts'
import { tryRun } from '../support/exec.ts'
import { Netns } from '../support/netns.ts'
import { type Measure, race, type Suite, type SuiteOptions } from './stats.ts'

const root = resolve(import.meta.dirname, '../..')
const executable = join(root, 'dist/ambridge')
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
const version: Command = { file: executable, env: { CNI_COMMAND: 'VERSION' } }

export const startup: Suite = {
  name: 'startup',
  run: async ({ runs, say }) => {
    if (!existsSync(executable)) throw new Error(`${executable} does not exist: npm run build makes it`)
    const rounds = { runs, warmups: 3 }
    const rows = [
      await race(
        { id: 'startup/version', unit: 'ms', target: 1.1 },
        timing(version),
        timing(nothing),
        rounds,
      ),
    ]
    await using prepared = await addCommand(say)
    if (prepared === undefined) return rows
    const { add, del } = prepared
    const addOnly = () => {
      const ms = time(add)
      time(del)
      return ms
    }
    rows.push(await race({ id: 'startup/add', unit: 'ms', target: 1.25 }, addOnly, timing(nothing), rounds))
    return rows
  },
}

/** ADD with static enrollment for a netns and programs of the benchmark's own; undefined where they cannot be loaded. */
async function addCommand(say: SuiteOptions['say']): Promise<AddCommand | undefined> {
  await using made = new AsyncDisposableStack()
  const bpffs = `/sys/fs/bpf/ambridge-bench-${process.pid}`
  made.defer(registerCleanup(async () => void (await tryRun(executable, ['unload', '--bpffs', bpffs]))))
  const { code, stderr } = await tryRun(executable, ['load', '--bpffs', bpffs])
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
    CNI_PATH: dirname(executable),
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
