// SPDX-License-Identifier: Apache-2.0
import { mkdirSync } from 'node:fs'
import type { Status } from '../../installer/programs/status.ts'
import type { PodMode } from '../../src/policy/pod.ts'
import { ambridgePath } from '../support/ambridge.ts'
import type { Cgroup } from '../support/cgroup.ts'
import { bridge, macvlan, type PluginConf } from '../support/conflists.ts'
import { waitFor } from '../support/exec.ts'
import type { Lan } from '../support/lan.ts'
import { showRules } from '../support/netns.ts'
import { type Node, startNode } from '../support/node.ts'
import { type Pod, runPod } from '../support/pods.ts'
import { toolPath } from '../support/sock.ts'
import { ZtunnelStandin } from '../support/standin.ts'

export type Mode = Exclude<PodMode, 'sidecar'>

const chains = { bridge, macvlan }
export type Chain = keyof typeof chains

export interface MeshNodeOptions {
  /** Default: one of its own. */
  readonly lan?: Lan
  /** For `rulesBefore`, at the price of some 30 processes in each ADD. */
  readonly keepsRules?: boolean
}

/** Either annotation asks for enrollment. */
export const enrolling = [
  { 'istio.io/dataplane-mode': 'ambient' },
  { 'ambient.istio.io/redirection': 'enabled' },
] as const

/** A real containerd node with one chain, and a ztunnel pod, in whose netns and in whose own cgroup the stand-in runs. */
export class MeshNode implements AsyncDisposable {
  readonly chain: Chain
  readonly node: Node
  readonly ztunnelPod: Pod
  /** Where the proxy's process runs. */
  readonly proxyCgroup: Cgroup

  private constructor(chain: Chain, node: Node, ztunnelPod: Pod) {
    this.chain = chain
    this.node = node
    this.ztunnelPod = ztunnelPod
    this.proxyCgroup = node.cgroup.child('proxy')
  }

  /** Without ambridge so far. */
  static async start(chain: Chain, { lan, keepsRules = false }: MeshNodeOptions = {}): Promise<MeshNode> {
    await toolPath('sock') // the pods' image has it when it is built
    const node = await startNode(lan ? { lan } : {})
    try {
      const conflist = chains[chain](node)
      mkdirSync(rulesDir(node))
      if (keepsRules) conflist.plugins.push({ type: 'netrules', dir: rulesDir(node), script: showRules })
      await node.useConflist(conflist)
      return new MeshNode(chain, node, await runPod(node, { name: 'ztunnel', namespace: 'istio-system' }))
    } catch (err) {
      await node.stop()
      throw err
    }
  }

  /** Put ambridge last in the chain, or change the mode of the entry that is there. */
  async install(mode: Mode): Promise<void> {
    const entry = {
      type: 'ambridge',
      mode,
      enrollment: { source: 'static' },
      capabilities: { 'io.kubernetes.cri.pod-annotations': true, cgroupPath: true },
    }
    const { binDir, confDir } = this.node
    const dirs = ['--bin-dir', binDir, '--conf-dir', confDir]
    await this.ambridge(['install', ...dirs, '--entry', JSON.stringify(entry)])
    await waitFor('containerd loads the entry of ambridge', async () => {
      const list = (await this.node.loadedConflist()) as { plugins: PluginConf[] }
      return list.plugins.at(-1)?.['mode'] === mode
    })
  }

  /** As once per node: the programs take in this node's cgroup and no more of the machine. */
  load(): Promise<string> {
    const cgroups = ['--cgroup', this.node.cgroup.dir, '--proxy-cgroup', this.proxyCgroup.dir]
    return this.ambridge(['load', ...cgroups, '--shared-proxy-netns', this.ztunnelPod.cniNetns])
  }

  /** In the node's namespaces. Gives stdout. */
  async ambridge(args: readonly string[]): Promise<string> {
    const { stdout, stderr, code } = await this.node.inNode(ambridgePath(), args)
    if (code !== 0) throw new Error(`ambridge ${args.join(' ')}: exit code ${code}\n${stdout}${stderr}`)
    return stdout
  }

  async status(): Promise<Status> {
    return JSON.parse(await this.ambridge(['status', '-o', 'json'])) as Status
  }

  /** The proxy of these pods, which are enrolled. */
  async startProxy(mode: Mode, pods: readonly Pod[]): Promise<ZtunnelStandin> {
    const { netnsPath, ips } = this.ztunnelPod
    const [ipv4 = '', ipv6 = ''] = ips
    const standin = await ZtunnelStandin.start({
      netns: { path: netnsPath },
      cgroupDir: this.proxyCgroup.dir,
      ...(mode === 'ambient-shared' ? { shared: { ipv4, ipv6 } } : {}),
    })
    if (mode === 'ambient') for (const pod of pods) await standin.add(pod.netnsPath)
    return standin
  }

  /** What the network rules were just before ambridge got the pod's ADD. */
  rulesBefore({ sandboxId }: Pod, whose: 'pod' | 'node'): string {
    return `${rulesDir(this.node)}/${sandboxId}.${whose}`
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.node.stop()
  }
}

function rulesDir(node: Node): string {
  return `${node.dir}/rules`
}
