// SPDX-License-Identifier: Apache-2.0
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import type { Conflist } from './conflists.ts'
import { installPlugins, snapshotter, writeConfig } from './containerd.ts'
import { type CriClient, connectCri } from './cri.ts'
import { type Daemon, run, waitFor } from './exec.ts'
import { imageArchive } from './image.ts'
import { makeParts, type NodeParts, NodeSpace, type NodeSpaceOptions } from './node-space.ts'

export interface NodeOptions extends NodeSpaceOptions {
  /** The executable; its shim must be beside it. */
  readonly containerdBin?: string
  /** Directory of the stock CNI plugins. */
  readonly cniBins?: string
  /** Directory of plugins under test, copied over the stock ones. */
  readonly pluginDir?: string
  /** Added to containerd's environment, which the plugins inherit. */
  readonly env?: Readonly<Record<string, string>>
  /** Path in the pods' image -> statically linked executable. */
  readonly extraFiles?: Readonly<Record<string, string>>
}

export async function startNode(options: NodeOptions = {}): Promise<Node> {
  const node = new Node(await makeParts(options), options)
  try {
    await node.start()
    return node
  } catch (err) {
    await node.stop()
    throw err
  }
}

/** A node with a real containerd, everything below one directory. */
export class Node extends NodeSpace {
  readonly sock: string
  readonly binDir: string
  readonly confDir: string
  readonly cri: CriClient
  readonly #options: NodeOptions
  #containerd: Daemon | undefined

  constructor(parts: NodeParts, options: NodeOptions) {
    super(parts)
    this.sock = `${this.dir}/c.sock`
    this.binDir = `${this.dir}/bin`
    this.confDir = `${this.dir}/net.d`
    this.cri = connectCri(this.sock)
    this.#options = options
  }

  /** Once, by startNode. */
  async start(): Promise<void> {
    const { cniBins = '/usr/lib/cni', pluginDir, extraFiles } = this.#options
    const archive = imageArchive(extraFiles)
    mkdirSync(this.confDir)
    installPlugins(this.binDir, cniBins, pluginDir)
    const [path] = await Promise.all([archive, this.startContainerd()])
    const format = ['--snapshotter', await snapshotter(this.dir)]
    await run('ctr', ['-a', this.sock, '-n', 'k8s.io', 'images', 'import', ...format, path])
  }

  /** After `stopContainerd`: a restart, with the pods still running. */
  async startContainerd(): Promise<void> {
    const bin = this.#options.containerdBin ?? '/usr/bin/containerd'
    const config = await writeConfig(this, this.#options.cgroups ?? 'hybrid')
    const env = { PATH: `${dirname(bin)}:/usr/sbin:/usr/bin:/sbin:/bin`, ...this.#options.env }
    const daemon = this.startInNode(bin, ['--config', config], { logFile: `${this.dir}/containerd.log`, env })
    this.#containerd = daemon
    const answers = async (): Promise<boolean> => {
      if (daemon.hasExited()) throw new Error(`containerd ended:\n${this.containerdLog().slice(-2000)}`)
      if (!existsSync(this.sock)) return false
      return this.cri.Status({}, { timeoutMs: 1_000 }).then(
        () => true,
        () => false,
      )
    }
    await waitFor('containerd answers', answers, { timeoutMs: 20_000 })
  }

  async stopContainerd(): Promise<void> {
    await this.#containerd?.stop()
  }

  get containerdPid(): number {
    return this.#containerd?.pid ?? 0
  }

  containerdLog(): string {
    return readFileSync(`${this.dir}/containerd.log`, 'utf8')
  }

  /** Make it the node's only network, and wait until containerd has loaded it. */
  async useConflist(conflist: Conflist | string): Promise<void> {
    const text =
      typeof conflist === 'string' ? readFileSync(conflist, 'utf8') : JSON.stringify(conflist, null, 2)
    writeFileSync(`${this.confDir}/.new`, text)
    // A file written in place may be read half-written.
    renameSync(`${this.confDir}/.new`, `${this.confDir}/10-net.conflist`)
    const wanted: unknown = JSON.parse(text)
    const isLoaded = async (): Promise<boolean> => isDeepStrictEqual(await this.loadedConflist(), wanted)
    await waitFor('containerd loads the conflist', isLoaded, { everyMs: 30 })
  }

  /** What containerd has loaded now. */
  async loadedConflist(): Promise<unknown> {
    const { info } = await this.cri.Status({ verbose: true })
    const { Networks } = JSON.parse(info['cniconfig'] ?? '{}') as {
      Networks?: { Config: { Name: string; Source: string } }[]
    }
    const network = Networks?.find(({ Config }) => Config.Name !== 'cni-loopback')
    return network && JSON.parse(network.Config.Source)
  }

  /** Pods through the runtime, so that every plugin gets its DEL; then the runtime. */
  protected override async shutDown(): Promise<void> {
    if (this.#containerd && !this.#containerd.hasExited()) await this.#removePods()
    this.cri.close()
    await this.#containerd?.stop()
  }

  /** Best effort: what a plugin refuses is ended with the cgroup. */
  async #removePods(): Promise<void> {
    const options = { timeoutMs: 10_000 }
    const { items } = await this.cri.ListPodSandbox({}, options).catch(() => ({ items: [] }))
    const remove = async (id: string): Promise<void> => {
      await this.cri.StopPodSandbox({ pod_sandbox_id: id }, options)
      await this.cri.RemovePodSandbox({ pod_sandbox_id: id }, options)
    }
    await Promise.allSettled(items.map(({ id }) => remove(id)))
  }
}
