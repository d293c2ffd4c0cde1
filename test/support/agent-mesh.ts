// SPDX-License-Identifier: Apache-2.0
/** A node with an agent, in plain network namespaces: the real agent and plugin; stand-ins for the API server and ztunnel. */
import { randomBytes, randomUUID } from 'node:crypto'
import { Agent, type AgentOptions } from './agent.ts'
import { type CniCall, type CniOutcome, tryCni } from './ambridge.ts'
import { ApiServer } from './api-server.ts'
import type { Cgroup } from './cgroup.ts'
import { waitFor } from './exec.ts'
import { Mesh } from './mesh.ts'
import type { LanHost } from './netns.ts'
import { startOwned, type Where } from './sock.ts'
import type { StandinOptions, ZtunnelStandin } from './standin.ts'

export const dataplane = 'istio.io/dataplane-mode'
export const redirection = 'ambient.istio.io/redirection'
export const ambient = { [dataplane]: 'ambient' }

export interface AgentMeshOptions {
  readonly hosts: number
  readonly agent?: Partial<Omit<AgentOptions, 'mesh' | 'kubeconfig'>>
  /** More options of `ambridge load`. */
  readonly load?: readonly string[]
}

export interface PodOptions {
  readonly name?: string
  /** Default `shop`, which is not in the mesh. */
  readonly namespace?: string
  readonly labels?: Readonly<Record<string, string>>
  readonly annotations?: Readonly<Record<string, string>>
  readonly serviceAccount?: string
  /** Of a static pod, what the kubelet takes for the uid. */
  readonly staticHash?: string
  /** Merged into the spec. */
  readonly spec?: Readonly<Record<string, unknown>>
}

/** A pod of the stand-in API server, and the sandbox that a container runtime would make of it. */
export interface MeshPod extends AsyncDisposable {
  readonly uid: string
  readonly name: string
  readonly namespace: string
  readonly host: LanHost
  readonly containerId: string
  /** For its programs. */
  readonly at: Where & { readonly cgroupDir: string }
  readonly call: CniCall
  add(): Promise<CniOutcome>
  del(): Promise<CniOutcome>
  /** What the kubelet reports when it runs. */
  run(): void
  /** Its annotation, as the API server has it. */
  redirection(): string | undefined
}

export class AgentMesh implements AsyncDisposable {
  readonly mesh: Mesh
  readonly api: ApiServer
  readonly agent: Agent
  readonly #stack: AsyncDisposableStack

  private constructor(mesh: Mesh, api: ApiServer, agent: Agent, stack: AsyncDisposableStack) {
    this.mesh = mesh
    this.api = api
    this.agent = agent
    this.#stack = stack
  }

  /** Namespaces `shop`, and `mesh`, which is labelled. */
  static async create({ hosts, agent = {}, load = [] }: AgentMeshOptions): Promise<AgentMesh> {
    await using stack = new AsyncDisposableStack()
    const mesh = stack.use(await Mesh.create({ hosts, load }))
    const api = stack.use(await ApiServer.start())
    api.namespaces.create({ name: 'shop' })
    api.namespaces.create({ name: 'mesh', labels: ambient })
    api.namespaces.create({ name: 'kube-system', labels: ambient })
    const started = stack.use(await Agent.start({ mesh, kubeconfig: api.kubeconfig, ...agent }))
    return new AgentMesh(mesh, api, started, stack.move())
  }

  /** That connects to the agent. */
  async ztunnel(options: StandinOptions = {}): Promise<ZtunnelStandin> {
    return this.mesh.startStandin({ zds: this.agent.zds, ...options })
  }

  /** Known to the API server, with a sandbox, and not added yet. */
  async pod(index: number, options: PodOptions = {}): Promise<MeshPod> {
    const host = this.mesh.host(index)
    const { name = `pod${index}`, namespace = 'shop', staticHash, ...more } = options
    const [uid, containerId] = [randomUUID(), randomBytes(32).toString('hex')]
    const kubeletUid = staticHash ?? uid
    this.api.pods.create({ ...more, name, namespace, uid, phase: 'Pending', ips: [] })
    await using stack = new AsyncDisposableStack()
    const cgroup = stack.use(this.mesh.pods.child(`pod${kubeletUid}`))
    const at = { netns: host.netns, cgroupDir: stack.use(cgroup.child(containerId)).dir }
    stack.use(await pause(at))
    const call = this.call({ name, namespace, uid: kubeletUid, containerId, host, cgroup })
    const owned = this.#stack.use(stack.move())
    const isKnown = () => this.api.pods.get({ namespace, name })
    return {
      ...{ uid, name, namespace, host, containerId, at, call },
      add: () => tryCni('ADD', call),
      del: () => tryCni('DEL', call),
      run: () => {
        const podIPs = [{ ip: host.ipv4 }, { ip: host.ipv6 }]
        this.api.pods.update({ namespace, name }, { status: { phase: 'Running', podIPs } })
      },
      redirection: () => isKnown()?.metadata.annotations[redirection],
      [Symbol.asyncDispose]: () => owned.disposeAsync(),
    }
  }

  /** A pod that was added and runs. */
  async started(index: number, options: PodOptions = {}): Promise<MeshPod> {
    const pod = await this.pod(index, options)
    const { code, output, stderr } = await pod.add()
    if (code !== 0) throw new Error(`ADD failed: ${JSON.stringify(output)}\n${stderr}`)
    pod.run()
    return pod
  }

  /** As a container runtime runs the plugin for this sandbox. */
  call(
    pod: Pick<MeshPod, 'name' | 'namespace' | 'uid' | 'containerId' | 'host'> & { cgroup: Cgroup },
  ): CniCall {
    const { name, namespace, uid, containerId, host, cgroup } = pod
    const args = { K8S_POD_NAMESPACE: namespace, K8S_POD_NAME: name, K8S_POD_UID: uid }
    const pairs = Object.entries(args).map(([key, value]) => `${key}=${value}`)
    const prevResult = {
      cniVersion: '1.0.0',
      ips: [{ address: `${host.ipv4}/24` }, { address: `${host.ipv6}/64` }],
    }
    const conf = {
      ...this.mesh.conf(),
      ...this.agent.conf(),
      prevResult,
      runtimeConfig: { cgroupPath: cgroup.path },
    }
    return {
      containerId,
      ifname: 'eth0',
      netns: host.netns.path,
      conf,
      env: { CNI_ARGS: `IgnoreUnknown=1;${pairs.join(';')}` },
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync()
  }
}

/** The process that holds a sandbox. */
async function pause(at: Where): Promise<AsyncDisposable> {
  const { daemon, stop } = await startOwned('pause', at, ['sleep', '3600'])
  await waitFor('the sandbox', () => daemon.pid > 0)
  return { [Symbol.asyncDispose]: stop }
}
