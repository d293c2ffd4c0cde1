// SPDX-License-Identifier: Apache-2.0
import { fileURLToPath } from 'node:url'
import { registerCleanup } from '../support/cleanup.ts'
import { bridge } from '../support/conflists.ts'
import { run, waitFor } from '../support/exec.ts'
import { type Node, type NodeOptions, startNode } from '../support/node.ts'
import { ControlPlane } from './control-plane.ts'
import { enableControllers, makeInAllHierarchies } from './controllers.ts'
import type { Kubectl, KubeObject } from './kubectl.ts'
import { Kubelet, nodeName } from './kubelet.ts'

const buildScript = fileURLToPath(new URL('../support/runtime/build-kubernetes.sh', import.meta.url))

/** Where container runtimes look by default, and so the agent. */
const binDir = '/opt/cni/bin'
const confDir = '/etc/cni/net.d'

/**
 * A real Kubernetes of one node: etcd, the API server with RBAC, the controllers, the scheduler and the kubelet on a real containerd. Its
 * primary CNI is the bridge plugin. There is neither kube-proxy nor DNS. All of it is in the node, and goes with it.
 */
export class Cluster implements AsyncDisposable {
  readonly node: Node
  readonly kubectl: Kubectl
  readonly kubelet: Kubelet
  readonly #control: ControlPlane
  readonly #stop: () => Promise<void>

  private constructor(node: Node, programs: string) {
    const restoreControllers = enableControllers()
    this.node = node
    this.#control = new ControlPlane(node, programs)
    this.kubectl = this.#control.kubectl
    const kubeconfig = this.#control.kubeconfig(`system:node:${nodeName}`)
    this.kubelet = new Kubelet(node, `${programs}/kubelet`, kubeconfig)
    this.#stop = registerCleanup(async () => {
      // First, as it would start again what the node ends.
      await this.kubelet.stop()
      await node.stop()
      restoreControllers()
    })
  }

  static async start(options: Pick<NodeOptions, 'extraFiles' | 'cgroups'> = {}): Promise<Cluster> {
    const programs = (await run(buildScript, [], { timeoutMs: 1_800_000 })).trim()
    const node = await startNode({ cgroups: 'v2', ...options })
    const cluster = new Cluster(node, programs)
    try {
      await cluster.#start()
      return cluster
    } catch (err) {
      await cluster.stop()
      throw err
    }
  }

  async #start(): Promise<void> {
    const { node } = this
    await Promise.all([this.#control.start(), node.useConflist(bridge(node)), this.#bindCniDirs()])
    makeInAllHierarchies(node.cgroup.path)
    await this.kubelet.prepare()
    await this.kubelet.start()
    await waitFor('the node is Ready', () => this.#isReady(), { timeoutMs: 60_000, everyMs: 200 }).catch(
      (err: unknown) => {
        throw new Error(`${String(err)}\n${this.log()}`)
      },
    )
  }

  /** containerd's directories at the places where the agent looks for them. */
  async #bindCniDirs(): Promise<void> {
    const { node } = this
    const script = 'mkdir -p "$2" && mount --bind "$1" "$2"'
    for (const [from, to] of [
      [node.binDir, binDir],
      [node.confDir, confDir],
    ] as const) {
      const { code, stderr } = await node.inNode('sh', ['-c', script, 'bind', from, to])
      if (code !== 0) throw new Error(`bind ${to}: ${stderr}`)
    }
  }

  async #isReady(): Promise<boolean> {
    type NodeObject = KubeObject & { status: { conditions: { type: string; status: string }[] } }
    const node = await this.kubectl.find<NodeObject>({ kind: 'node', name: nodeName })
    return node?.status.conditions.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false
  }

  /** For the message of a failure. */
  log(): string {
    return `${this.#control.log()}\nkubelet:\n${this.kubelet.log()}`
  }

  stop(): Promise<void> {
    return this.#stop()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }
}
