// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, writeFileSync } from 'node:fs'
import { type Daemon, waitFor } from '../support/exec.ts'
import { nodeAddress } from '../support/lan.ts'
import type { Node } from '../support/node.ts'
import { tail } from './control-plane.ts'

/** The kubelet sets these at every start. It finds files that hold what it wants, so the machine's stay. */
const sysctls = {
  'vm/overcommit_memory': 1,
  'vm/panic_on_oom': 0,
  'kernel/panic': 10,
  'kernel/panic_on_oops': 1,
  'kernel/keys/root_maxkeys': 1_000_000,
  'kernel/keys/root_maxbytes': 25_000_000,
}

export const nodeName = 'node1'

/** The kubelet of a node, in the node's cgroup `kubelet`; its pods are in `kubepods`. */
export class Kubelet {
  readonly #node: Node
  readonly #program: string
  readonly #kubeconfig: string
  readonly #dir: string
  #daemon: Daemon | undefined

  constructor(node: Node, program: string, kubeconfig: string) {
    this.#node = node
    this.#program = program
    this.#kubeconfig = kubeconfig
    this.#dir = `${node.dir}/kubelet`
  }

  /** Once, before start(). */
  async prepare(): Promise<void> {
    mkdirSync(this.manifestDir, { recursive: true })
    writeFileSync(`${this.#dir}/resolv.conf`, '')
    writeFileSync(`${this.#dir}/config.json`, JSON.stringify(configuration(this.#node, this.#dir)))
    for (const [name, value] of Object.entries(sysctls)) {
      const file = `${this.#dir}/sysctl-${name.replaceAll('/', '-')}`
      writeFileSync(file, `${value}\n`)
      const { code, stderr } = await this.#node.inNode('mount', ['--bind', file, `/proc/sys/${name}`])
      if (code !== 0) throw new Error(`hide the sysctl ${name}: ${stderr}`)
    }
  }

  /** Where static pods' manifests lie. */
  get manifestDir(): string {
    return `${this.#dir}/manifests`
  }

  /** Also after stop(), with the pods still running. */
  async start(): Promise<void> {
    const args = [
      `--config=${this.#dir}/config.json`,
      `--kubeconfig=${this.#kubeconfig}`,
      `--root-dir=${this.#dir}/root`,
      `--cert-dir=${this.#dir}/pki`,
      `--hostname-override=${nodeName}`,
      `--node-ip=${nodeAddress(this.#node.index).ipv4}`,
    ]
    const options = { logFile: `${this.#dir}/log`, cgroupDir: this.#node.kubelet.dir }
    const daemon = this.#node.startInNode(this.#program, args, options)
    this.#daemon = daemon
    await waitFor(
      'the kubelet is healthy',
      async () => {
        if (daemon.hasExited()) throw new Error(`the kubelet has ended\n${this.log()}`)
        const { stdout } = await this.#node.inNode('curl', ['-sm', '1', 'http://127.0.0.1:10248/healthz'])
        return stdout === 'ok'
      },
      { timeoutMs: 60_000, everyMs: 200 },
    )
  }

  async stop(): Promise<void> {
    await this.#daemon?.stop()
  }

  log(): string {
    return tail(`${this.#dir}/log`)
  }
}

function configuration(node: Node, dir: string): object {
  return {
    apiVersion: 'kubelet.config.k8s.io/v1beta1',
    kind: 'KubeletConfiguration',
    address: '0.0.0.0',
    authentication: { anonymous: { enabled: true }, webhook: { enabled: false } },
    authorization: { mode: 'AlwaysAllow' },
    containerRuntimeEndpoint: `unix://${node.sock}`,
    cgroupDriver: 'cgroupfs',
    cgroupRoot: node.cgroup.path,
    evictionHard: Object.fromEntries(
      ['memory.available', 'nodefs.available', 'nodefs.inodesFree', 'imagefs.available'].map((signal) => [
        signal,
        signal === 'memory.available' ? '1Mi' : '0%',
      ]),
    ),
    imageGCHighThresholdPercent: 100,
    failSwapOn: false,
    makeIPTablesUtilChains: false,
    staticPodPath: `${dir}/manifests`,
    volumePluginDir: `${dir}/plugins`,
    resolvConf: `${dir}/resolv.conf`,
    clusterDNS: ['10.96.0.10'],
    clusterDomain: 'cluster.local',
    fileCheckFrequency: '1s',
    syncFrequency: '2s',
    maxOpenFiles: 10_000,
    oomScoreAdj: 0,
    serializeImagePulls: false,
  }
}
