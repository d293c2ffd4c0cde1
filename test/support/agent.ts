// SPDX-License-Identifier: Apache-2.0
/** The node agent under test, `dist/ambridge agent`, on the pins and cgroups of a mesh. */
import { mkdirSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { ambridgePath, type Conf } from './ambridge.ts'
import { own, registerCleanup } from './cleanup.ts'
import { type Daemon, startDaemon, waitFor } from './exec.ts'
import type { Mesh } from './mesh.ts'

export interface AgentOptions {
  readonly mesh: Mesh
  readonly kubeconfig: string
  /** More options of `ambridge agent`. */
  readonly args?: readonly string[]
  /** Default 3600: what is repaired is repaired by events. */
  readonly reconcileSeconds?: number
  /** Default: that of the mesh. `false`: ztunnel becomes known when it connects. */
  readonly proxyCgroup?: false
  /** Where the plugin is put; default: nowhere. */
  readonly install?: { readonly binDir: string; readonly confDir: string }
}

/** A line of its log. */
export interface LogLine {
  readonly level: string
  readonly message: string
  readonly module?: string
  readonly error?: string
  readonly [field: string]: unknown
}

export const nodeName = 'node1'
let created = 0

/** One node's agent, which can be started again on the same paths. Disposing it stops it and removes them. */
export class Agent implements AsyncDisposable {
  readonly dir: string
  readonly zds: string
  readonly socket: string
  readonly enrollmentFile: string
  readonly #options: AgentOptions
  readonly #remove: () => Promise<void>
  #daemon: Daemon | undefined
  #starts = 0

  private constructor(options: AgentOptions) {
    this.#options = options
    this.dir = `${tmpdir()}/ambt${process.pid}-agent${++created}`
    const remove = own({ kind: 'dir', path: this.dir })
    mkdirSync(this.dir)
    this.zds = `${this.dir}/zds/ztunnel.sock`
    this.socket = `${this.dir}/run/agent.sock`
    this.enrollmentFile = `${this.dir}/lib/enrollment.json`
    this.#remove = registerCleanup(async () => {
      await this.stop()
      await remove()
    })
  }

  static async start(options: AgentOptions): Promise<Agent> {
    const agent = new Agent(options)
    try {
      await agent.start()
      return agent
    } catch (err) {
      await agent[Symbol.asyncDispose]()
      throw err
    }
  }

  get pid(): number {
    return this.#daemon?.pid ?? 0
  }

  get logFile(): string {
    return `${this.dir}/agent-${this.#starts}.log`
  }

  /** Resolves when it says that it is running. `more`: options of this time. */
  async start(more: readonly string[] = []): Promise<void> {
    this.launch(more)
    await this.running()
  }

  /** Without waiting for it. */
  launch(moreArgs: readonly string[] = []): void {
    const { mesh, kubeconfig, args = [], reconcileSeconds = 3600, proxyCgroup, install } = this.#options
    this.#starts++
    const paths = ['--zds', this.zds, '--socket', this.socket, '--enrollment-file', this.enrollmentFile]
    const proxies = proxyCgroup === false ? [] : ['--proxy-cgroup', mesh.proxy.dir]
    const where = ['--bpffs', mesh.bpffs, '--cgroup', mesh.cgroup.dir, ...proxies, '--probes', 'off']
    const host = install ? ['--bin-dir', install.binDir, '--conf-dir', install.confDir] : ['--no-install']
    const http = ['--http', '127.0.0.1:0', '--reconcile-seconds', String(reconcileSeconds)]
    const who = ['--node-name', nodeName, '--kubeconfig', kubeconfig]
    const command = ['agent', ...who, ...where, ...paths, ...host, ...http, ...args, ...moreArgs]
    this.#daemon = startDaemon(ambridgePath(), command, { logFile: this.logFile })
  }

  async running(): Promise<void> {
    await waitFor('the agent runs', () => {
      if (this.#daemon?.hasExited())
        throw new Error(`the agent has ended: ${readFileSync(this.logFile, 'utf8')}`)
      return this.log().some(({ message }) => message === 'agent is running')
    })
  }

  /** Of the current process. */
  log(): LogLine[] {
    const text = readFileSync(this.logFile, { encoding: 'utf8', flag: 'a+' })
    return text
      .split('\n')
      .slice(0, -1)
      .map((line) => (line.startsWith('{') ? JSON.parse(line) : { level: 'error', message: line }))
  }

  waitForLog(message: string, matches: (line: LogLine) => boolean = () => true): Promise<LogLine> {
    return waitFor(`the agent says: ${message}`, () =>
      this.log().find((line) => line.message === message && matches(line)),
    )
  }

  /** What its HTTP server answers. */
  async get(path: string): Promise<{ status: number; text: string }> {
    const { address } = await this.waitForLog('http server listens')
    const response = await fetch(`http://${address}${path}`)
    return { status: response.status, text: await response.text() }
  }

  /** The value of a metric, `name{label="value"}` as Prometheus writes it; 0 where there is none. */
  async metric(name: string): Promise<number> {
    const { text } = await this.get('/metrics')
    const line = text.split('\n').find((each) => each.startsWith(`${name} `))
    return Number(line?.slice(name.length) ?? 0)
  }

  /** What the plugin is to find in the network configuration. */
  conf(): Conf {
    const enrollment = { source: 'agent' }
    return {
      enrollment,
      agentSocket: this.socket,
      enrollmentFile: this.enrollmentFile,
      excludeNamespaces: ['kube-system'],
    }
  }

  signal(name: 'SIGTERM' | 'SIGSTOP' | 'SIGCONT'): void {
    process.kill(this.pid, name)
  }

  /** Resolves to its exit code; undefined: a signal ended it. */
  async ended(): Promise<number | undefined> {
    await this.#daemon?.exited
    return this.#daemon?.exitCode()
  }

  hasEnded(): boolean {
    return this.#daemon?.hasExited() ?? true
  }

  /** As a crash, or the kernel's OOM killer. */
  async kill(): Promise<void> {
    if (this.#daemon === undefined || this.#daemon.hasExited()) return
    process.kill(this.#daemon.pid, 'SIGKILL')
    await this.#daemon.exited
  }

  async stop(): Promise<void> {
    await this.#daemon?.stop()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#remove()
  }
}
