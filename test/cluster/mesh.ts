// SPDX-License-Identifier: Apache-2.0
/** A cluster with the agent of conf/manifests, a stand-in for ztunnel, and a server outside the mesh. */
import { chownSync, readFileSync } from 'node:fs'
import { cgroup2Root } from '../support/cgroup.ts'
import { waitFor } from '../support/exec.ts'
import { parseLines, toolPath } from '../support/sock.ts'
import type { ProxyConnection } from '../support/standin.ts'
import { Cluster } from './cluster.ts'
import { agentImage, importAgentImage } from './images.ts'
import type { Kubectl, PodObject, Ref } from './kubectl.ts'
import { agentLabels, agentNamespace, manifestWith } from './manifest.ts'
import { type Outcome, outcomeOf } from './outcome.ts'
import { dialler, namespace, pod, ztunnel, ztunnelLabels } from './workloads.ts'

export type PodRef = Omit<Ref, 'kind'>

export const serverPort = 8080
const conflist = '/etc/cni/net.d/10-net.conflist'
const redirection = 'ambient.istio.io/redirection'

export class MeshCluster implements AsyncDisposable {
  readonly cluster: Cluster
  readonly kubectl: Kubectl
  /** Address of the server. */
  server = ''

  /** Where the node has cgroup v2. */
  readonly #cgroup2: string

  private constructor(cluster: Cluster, cgroup2: string) {
    this.cluster = cluster
    this.#cgroup2 = cgroup2
    this.kubectl = cluster.kubectl
  }

  static async start(cgroups: 'hybrid' | 'v2' = 'v2'): Promise<MeshCluster> {
    const standin = await toolPath('ztunnel-standin')
    const cluster = await Cluster.start({ cgroups, extraFiles: { '/bin/ztunnel-standin': standin } })
    try {
      const mesh = new MeshCluster(cluster, cgroups === 'v2' ? '/sys/fs/cgroup' : cgroup2Root())
      await importAgentImage(cluster.node)
      // As it is where an archive of the CNI plugins was unpacked.
      chownSync(cluster.node.binDir, 1001, 1001)
      const serve = ['/bin/sock', 'serve', '--port', String(serverPort)]
      await cluster.kubectl.apply(
        namespace(agentNamespace),
        pod({ name: 'server', labels: { app: 'server' }, command: serve }),
      )
      const [server] = await cluster.kubectl.waitReady('default', 'app=server')
      mesh.server = server?.status.podIP ?? ''
      return mesh
    } catch (err) {
      await cluster.stop()
      throw err
    }
  }

  /** The agent, with the cgroups of this node, and ztunnel. */
  async deploy(): Promise<void> {
    const { kubepods, kubelet } = this.cluster.node
    const args = [
      `--cgroup=${this.#cgroup2}${kubepods.path}`,
      `--kubelet-cgroup=${this.#cgroup2}${kubelet.path}`,
      '--log-level=debug',
    ]
    await this.kubectl.apply(...manifestWith(agentImage, args), ...ztunnel())
  }

  async agentReady(): Promise<PodObject> {
    return await this.#only(agentLabels)
  }

  /** Takes the agent off the node, or lets it back. */
  async keepAgentAway(away: boolean): Promise<void> {
    const nodeSelector = { 'kubernetes.io/hostname': away ? 'nowhere' : null }
    const patch = JSON.stringify({ spec: { template: { spec: { nodeSelector } } } })
    await this.kubectl.run(['patch', 'daemonset', 'ambridge', '-n', agentNamespace, '-p', patch])
    if (!away) return void (await this.agentReady())
    const isGone = async () => (await this.restartsOf(agentLabels)).length === 0
    await waitFor('the end of the agent', isGone, patient)
  }

  agentPid(): number {
    const isAgent = (pid: number): boolean =>
      readFileSync(`/proc/${pid}/cmdline`, 'utf8').startsWith('/usr/local/bin/ambridge\0agent')
    const pids = this.cluster.node.kubepods.pids().filter(isAgent)
    if (pids.length !== 1 || pids[0] === undefined) throw new Error(`agents: ${pids}`)
    return pids[0]
  }

  async ztunnelReady(): Promise<PodObject> {
    return await this.#only(ztunnelLabels)
  }

  async #only(labels: string): Promise<PodObject> {
    const found = async (): Promise<PodObject | undefined> => {
      const pods = await this.kubectl.waitReady(agentNamespace, labels).catch(async (err: unknown) => {
        throw new Error(`${String(err)}\n${await this.logs(agentLabels)}`)
      })
      return pods.length === 1 ? pods[0] : undefined
    }
    return await waitFor(`one pod ${labels}`, found, { timeoutMs: 60_000, everyMs: 200 })
  }

  /** Of the one pod of istio-system with these labels. */
  async logs(labels: string): Promise<string> {
    const args = ['logs', '-n', agentNamespace, '-l', labels, '--tail=-1']
    const { stdout, stderr } = await this.kubectl.try(args)
    return stdout + stderr
  }

  async connections(): Promise<ProxyConnection[]> {
    const text = await this.logs(ztunnelLabels)
    return parseLines<ProxyConnection>(text).filter(({ event }) => event === 'connection')
  }

  /** The plugins of the conflist on the node. */
  chain(): { readonly type: string }[] {
    const text = readFileSync(this.cluster.node.hostPath(conflist), 'utf8')
    return (JSON.parse(text) as { plugins: { type: string }[] }).plugins
  }

  /** Ends a pod's sandbox behind the kubelet's back, and waits until it has made another, which is another ADD. */
  async replaceSandbox({ name, namespace = 'default' }: PodRef): Promise<void> {
    const { cri } = this.cluster.node
    const all = async () => {
      const { items } = await cri.ListPodSandbox({})
      return items.filter(({ metadata }) => metadata.name === name && metadata.namespace === namespace)
    }
    const old = await all()
    for (const { id } of old) await cri.StopPodSandbox({ pod_sandbox_id: id })
    const isReplaced = async () =>
      (await all()).some(({ id, state }) => isNew(id) && state === 'SANDBOX_READY')
    const isNew = (id: string) => old.every((each) => each.id !== id)
    await waitFor(`another sandbox of ${name}`, isReplaced, patient)
    await this.execWorks({ name, namespace })
  }

  /** A pod that dials the server first of all, and runs. */
  async start(ref: PodRef, labels: Readonly<Record<string, string>> = {}): Promise<void> {
    await this.kubectl.apply(dialler({ ...ref, labels }, this.server, serverPort))
    await this.running(ref)
  }

  /** How often the containers of pods with these labels have ended. */
  async restartsOf(labels: string): Promise<number[]> {
    const pods = await this.kubectl.list<PodObject>('pods', ['-n', agentNamespace, '-l', labels])
    return pods.flatMap(({ status }) => status.containerStatuses?.map((each) => each.restartCount) ?? [])
  }

  /** The kubelet knows the pod's container as running. */
  async execWorks(ref: PodRef): Promise<void> {
    const works = async () => (await this.kubectl.exec(ref, ['/bin/true'])).code === 0
    await waitFor(`kubectl exec in ${ref.name}`, works, patient)
  }

  /** A running pod dials the server. */
  async dial(ref: PodRef): Promise<Outcome> {
    const command = ['/bin/sock', 'connect', this.server, String(serverPort), '--timeout', '3000']
    const { stdout, stderr } = await this.kubectl.exec(ref, command)
    if (stdout === '') throw new Error(`kubectl exec in ${ref.name}: ${stderr}`)
    return outcomeOf(stdout)
  }

  /** How the dialler's first command fared. */
  async firstDial(ref: PodRef): Promise<Outcome> {
    const log = async (): Promise<string | false> => (await this.kubectl.try(['logs', ...named(ref)])).stdout
    return outcomeOf(await waitFor(`the log of ${ref.name}`, async () => (await log()) || false, patient))
  }

  async redirection(ref: PodRef): Promise<string | undefined> {
    const found = await this.kubectl.find<PodObject>({ kind: 'pod', ...ref })
    if (!found) throw new Error(`no pod ${ref.name}`)
    return found.metadata.annotations?.[redirection]
  }

  async running(ref: PodRef): Promise<PodObject> {
    const isRunning = async (): Promise<PodObject | false> => {
      const found = await this.kubectl.find<PodObject>({ kind: 'pod', ...ref })
      return found?.status.phase === 'Running' && found
    }
    return await waitFor(`${ref.name} runs`, isRunning, patient).catch(async (err: unknown) => {
      throw new Error(`${String(err)}\n${await this.kubectl.describe(ref.namespace ?? 'default')}`)
    })
  }

  stop(): Promise<void> {
    return this.cluster.stop()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }
}

export const patient = { timeoutMs: 60_000, everyMs: 200 } as const

function named({ name, namespace = 'default' }: PodRef): string[] {
  return ['-n', namespace, name]
}
