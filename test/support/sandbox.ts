// SPDX-License-Identifier: Apache-2.0
/** Sandboxes as a container runtime makes them: for each try another netns and another container id. */
import { randomBytes } from 'node:crypto'
import { Netns as OpenNetns } from '../../src/linux/netns.ts'
import type { AgentMesh } from './agent-mesh.ts'
import type { CniCall } from './ambridge.ts'
import type { Cgroup } from './cgroup.ts'
import { addHost, type LanHost, lan, type SmallLan } from './netns.ts'
import { type Attempt, Redialer } from './redialer.ts'

export interface PodIdentity {
  readonly uid: string
  readonly name: string
  readonly namespace: string
}

export interface Sandbox {
  readonly containerId: string
  readonly host: LanHost
  readonly call: CniCall
  /** Of the netns. */
  readonly cookie: bigint
  readonly podCgroup: Cgroup
  /** The application. Some runtimes start none before ADD is over. */
  startClient(): Promise<void>
  /** What the application did; it is ended. */
  endClient(): Promise<Attempt[]>
  remove(): Promise<void>
}

/** Addresses of the LAN are used again late. */
const hostCount = 240
const pauseMs = 8

/** A LAN with the server that all clients dial, and sandboxes that come and go. */
export class Sandboxes implements AsyncDisposable {
  readonly server: LanHost
  readonly #field: AgentMesh
  readonly #lan: SmallLan
  readonly #used = new Set<number>()
  readonly #open = new Set<Sandbox>()
  #last = 1

  private constructor(field: AgentMesh, local: SmallLan, server: LanHost) {
    this.#field = field
    this.#lan = local
    this.server = server
  }

  static async create(field: AgentMesh): Promise<Sandboxes> {
    const local = await lan(1)
    const [server] = local.hosts
    if (server === undefined) throw new Error('no host')
    return new Sandboxes(field, local, server)
  }

  /** `family`: how its client dials. */
  async make(pod: PodIdentity, family: 'ipv4' | 'ipv6'): Promise<Sandbox> {
    const { mesh } = this.#field
    const index = this.#freeIndex()
    const containerId = randomBytes(32).toString('hex')
    const host = await addHost(this.#lan.router, index)
    const podCgroup = mesh.pods.child(`pod${pod.uid}`)
    const cgroup = podCgroup.child(containerId)
    let client: Redialer | undefined
    const sandbox: Sandbox = {
      ...{ containerId, host, podCgroup, cookie: cookieOf(host) },
      call: this.#field.call({ ...pod, containerId, host, cgroup: podCgroup }),
      startClient: async () => {
        const at = { netns: host.netns, cgroupDir: cgroup.dir }
        client ??= await Redialer.start(at, this.server[family], 8080, pauseMs)
      },
      endClient: async () => (await client?.end()) ?? [],
      remove: async () => {
        await client?.[Symbol.asyncDispose]()
        await cgroup.dispose()
        await host.netns.dispose()
        this.#used.delete(index)
        this.#open.delete(sandbox)
      },
    }
    this.#open.add(sandbox)
    return sandbox
  }

  #freeIndex(): number {
    do this.#last = (this.#last % hostCount) + 1
    while (this.#last === 1 || this.#used.has(this.#last))
    this.#used.add(this.#last)
    return this.#last
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const sandbox of this.#open) await sandbox.remove()
    await this.#lan.dispose()
  }
}

function cookieOf({ netns }: LanHost): bigint {
  using opened = OpenNetns.open(netns.path)
  return opened.cookie()
}
