// SPDX-License-Identifier: Apache-2.0
/** ADD by the number of pods that the node has, and what it takes from the node: time, CPU and memory of the whole process. */
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { own } from '../support/cleanup.ts'
import { run } from '../support/exec.ts'
import { Mesh } from '../support/mesh.ts'
import { enter } from '../support/sock.ts'
import { install, registerOthers } from './installed.ts'
import { budgetMs, compare, type Row, type Samples, type Step, type Suite, takeTurns } from './stats.ts'
import { benchPath, type Cost } from './tool.ts'

const bareNode = resolve(import.meta.dirname, `../../node_modules/node-linux-${process.arch}/bin/node`)
const nodeArguments = ['-e', '0']
const populations = [1, 100, 1000] as const

export const add: Suite = {
  name: 'add',
  run: async ({ runs }) => {
    await using stack = new AsyncDisposableStack()
    const { file } = stack.use(await install())
    const steps: Step[] = [async () => named('node', await measure([bareNode, ...nodeArguments]))]
    for (const population of populations) steps.push(await addStep(file, population, stack))
    return rows(await takeTurns(steps, { runs, warmups: 1, budgetMs }))
  },
}

function rows(samples: Samples): Row[] {
  const versus = (id: string, unit: string, target: number | null, ours: string, reference: string): Row =>
    compare({ id: `add/${id}`, unit, target }, samples(ours), samples(reference))
  return [
    versus('100-pods', 'ms', 1.1, 'add-100 ms', 'add-1 ms'),
    versus('1000-pods', 'ms', 1.1, 'add-1000 ms', 'add-1 ms'),
    versus('cpu-to-node', 'CPU ms', null, 'add-1 cpu', 'node cpu'),
    versus('memory-to-node', 'MiB', null, 'add-1 peak', 'node peak'),
  ]
}

/** A node of its own where so many pods are registered besides the one that is added. */
async function addStep(file: string, population: number, stack: AsyncDisposableStack): Promise<Step> {
  const mesh = stack.use(await Mesh.create({ hosts: 1 }))
  registerOthers(mesh.bpffs, population)
  const dir = mkdtempSync(join(tmpdir(), 'ambridge-bench-'))
  stack.defer(own({ kind: 'dir', path: dir }))
  const stdin = join(dir, 'stdin.json')
  writeFileSync(stdin, JSON.stringify(mesh.conf()))
  const netns = mesh.host(0).netns.path
  return async () => {
    const cost = await measure([file], attachment('ADD', netns), stdin)
    await measure([file], attachment('DEL', netns), stdin)
    return named(`add-${population}`, cost)
  }
}

/** All of the environment that a runtime gives. */
function attachment(command: string, netns: string): string[] {
  const env = { CNI_COMMAND: command, CNI_CONTAINERID: 'bench', CNI_NETNS: netns, CNI_IFNAME: 'eth0' }
  const pod = { CNI_PATH: '/opt/cni/bin', CNI_ARGS: 'K8S_POD_NAMESPACE=bench;K8S_POD_NAME=bench' }
  return Object.entries({ ...env, ...pod }).map(([name, value]) => `${name}=${value}`)
}

/** Throws unless the exit code is 0. */
async function measure(command: readonly string[], env: readonly string[] = [], stdin = '/dev/null') {
  const tool = ['env', '-i', ...env, await benchPath('bench'), 'measure', ...command]
  const [file = '', ...args] = enter({}, tool, stdin)
  const cost = JSON.parse(await run(file, args)) as Cost
  if (cost.code !== 0) throw new Error(`${command.join(' ')}: exit code ${cost.code}`)
  return cost
}

function named(name: string, { ns, cpu_us: us, peak_kib: kib }: Cost): Record<string, number> {
  return { [`${name} ms`]: ns / 1e6, [`${name} cpu`]: us / 1000, [`${name} peak`]: kib / 1024 }
}
