// SPDX-License-Identifier: Apache-2.0
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { fileURLToPath } from 'node:url'
import { Cgroup } from './cgroup.ts'
import { own, registerCleanup } from './cleanup.ts'
import { type Daemon, type ExecOptions, type ExecResult, startDaemon, tryRun, waitFor } from './exec.ts'
import { Lan } from './lan.ts'
import { Netns } from './netns.ts'

export interface NodeSpaceOptions {
  /** `/sys/fs/cgroup` as the machine has it, or cgroup v2 alone as on a pure v2 node. Default hybrid. */
  readonly cgroups?: 'hybrid' | 'v2'
  /** Nodes on one Lan reach each other. Default: one of its own. */
  readonly lan?: Lan
  /** Start of the node's name, 8 characters at most. */
  readonly prefix?: string
}

export interface NodeExecOptions extends ExecOptions {
  /** Directory of the cgroup to run in, for instance `node.kubelet.dir`. Default: the node's `system`. */
  readonly cgroupDir?: string
}

export interface NodeDaemonOptions {
  readonly logFile: string
  readonly env?: Readonly<Record<string, string>>
  readonly cgroupDir?: string
}

export interface NodeParts {
  readonly name: string
  readonly dir: string
  readonly lan: Lan
  readonly netns: Netns
  readonly index: number
  readonly cgroup: Cgroup
  readonly anchorPid: number
  readonly stack: AsyncDisposableStack
}

const uplink = 'up0'
const namespaceScript = fileURLToPath(new URL('./runtime/node-namespace.sh', import.meta.url))
const joinCgroup = ['-c', 'echo 0 > "$0/cgroup.procs" && exec "$@"'] as const
let created = 0

export async function makeParts({
  prefix = 'ambt',
  cgroups = 'hybrid',
  lan: shared,
}: NodeSpaceOptions): Promise<NodeParts> {
  await using stack = new AsyncDisposableStack()
  const name = `${prefix}${process.pid}n${++created}`
  const dir = `${tmpdir()}/${name}`
  stack.defer(own({ kind: 'dir', path: dir }))
  mkdirSync(dir)
  const lan = shared ?? stack.use(await Lan.create())
  const netns = stack.use(await Netns.create('node'))
  const index = await lan.join(netns, uplink)
  const cgroup = stack.use(Cgroup.create(`/${name}`))
  const anchorPid = await startAnchor(dir, netns, cgroup.child('system'), cgroups)
  return { name, dir, lan, netns, index, cgroup, anchorPid, stack: stack.move() }
}

/** The process that keeps the mount namespace, so that a runtime can be restarted in it. */
async function startAnchor(dir: string, netns: Netns, cgroup: Cgroup, cgroups: string): Promise<number> {
  const logFile = `${dir}/anchor.log`
  const args = [`--net=${netns.path}`, '--', namespaceScript, dir, cgroups, 'sleep', 'infinity']
  const anchor = startDaemon('sh', [...joinCgroup, cgroup.dir, 'nsenter', ...args], { logFile })
  await waitFor('the mount namespace of the node', () => {
    if (anchor.hasExited())
      throw new Error(`cannot make the mount namespace of the node: ${readFileSync(logFile, 'utf8')}`)
    return existsSync(`${dir}/anchor.pid`)
  })
  return anchor.pid
}

/** A node without a runtime: one netns with an uplink, one private mount namespace, one cgroup, one directory. */
export class NodeSpace implements AsyncDisposable {
  readonly uplink = uplink
  readonly name: string
  readonly dir: string
  readonly lan: Lan
  readonly netns: Netns
  /** The node's number on its Lan: 1, 2... */
  readonly index: number
  /** The whole node: killing it ends all, the pods too. Below it `kubepods` (all pods), `kubelet` (empty), `system` (the rest). */
  readonly cgroup: Cgroup
  readonly kubepods: Cgroup
  readonly kubelet: Cgroup
  /** A process in the node's netns and mount namespace, for callers that enter them by themselves. */
  readonly anchorPid: number
  readonly #stop: () => Promise<void>

  constructor(parts: NodeParts) {
    this.name = parts.name
    this.dir = parts.dir
    this.lan = parts.lan
    this.netns = parts.netns
    this.index = parts.index
    this.cgroup = parts.cgroup
    this.kubepods = parts.cgroup.child('kubepods')
    this.kubelet = parts.cgroup.child('kubelet')
    this.anchorPid = parts.anchorPid
    this.#stop = registerCleanup(async () => {
      await using stack = parts.stack
      await this.shutDown()
      void stack
    })
  }

  static async create(options: NodeSpaceOptions = {}): Promise<NodeSpace> {
    return new NodeSpace(await makeParts(options))
  }

  /** The netns outside the node that reaches pods of every chain, macvlan ones included. */
  get lanNetns(): Netns {
    return this.lan.netns
  }

  /** A path of the node as the test process can open it. */
  hostPath(path: string): string {
    return `/proc/${this.anchorPid}/root${path}`
  }

  /** Run in the node's namespaces; the working directory is `/`. */
  inNode(command: string, args: readonly string[] = [], options: NodeExecOptions = {}): Promise<ExecResult> {
    const { cgroupDir, ...rest } = options
    return tryRun('sh', this.#enter(cgroupDir, command, args), rest)
  }

  /** A long-running process in the node. Stopping the node ends it, too. */
  startInNode(command: string, args: readonly string[], options: NodeDaemonOptions): Daemon {
    const { cgroupDir, ...rest } = options
    return startDaemon('sh', this.#enter(cgroupDir, command, args), rest)
  }

  stop(): Promise<void> {
    return this.#stop()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  /** What has to end in order before the cgroup is killed. */
  protected async shutDown(): Promise<void> {}

  #enter(cgroupDir = `${this.cgroup.dir}/system`, command: string, args: readonly string[]): string[] {
    const enter = ['nsenter', '--mount', '--net', '--target', String(this.anchorPid), '--']
    return [...joinCgroup, cgroupDir, ...enter, command, ...args]
  }
}
