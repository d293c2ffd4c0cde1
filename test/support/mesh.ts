// SPDX-License-Identifier: Apache-2.0
/** A small node of a mesh, in plain network namespaces: programs loaded into pins and a cgroup of its own, hosts on one bridge. */
import { mkdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import type { PodStatus, Status } from '../../installer/programs/status.ts'
import { isBpffs } from '../../src/linux/bpffs.ts'
import { ambridge, ambridgeJson, type Conf, cni } from './ambridge.ts'
import { Cgroup } from './cgroup.ts'
import { own } from './cleanup.ts'
import { run } from './exec.ts'
import { type LanHost, lan } from './netns.ts'
import { SockServer, type Where } from './sock.ts'
import { type ProxyConnection, type StandinOptions, ZtunnelStandin } from './standin.ts'

/** How a client dials: the key of the address in LanHost, and the options of `sock connect`. */
export interface Family {
  readonly name: string
  readonly key: 'ipv4' | 'ipv6'
  readonly options: readonly string[]
}

/** For `test.for(families)('... over $name', ...)`. */
export const families: readonly Family[] = [
  { name: 'IPv4', key: 'ipv4', options: [] },
  { name: 'IPv6', key: 'ipv6', options: [] },
  { name: 'v4-mapped IPv6', key: 'ipv4', options: ['--v6-mapped'] },
]

export interface MeshOptions {
  /** Default 2. */
  readonly hosts?: number
  /** The host of this index is the pod of a proxy that all share (mode ambient-shared). */
  readonly sharedProxy?: number
  /** More options of `ambridge load`. */
  readonly load?: readonly string[]
}

/** What LanHost has, or any other network namespace. */
export interface Host {
  readonly netns: { readonly name: string; readonly path: string }
}

/** An attachment that was added. */
export interface Enrolled {
  readonly containerId: string
  readonly ifname: string
  readonly netns: string
  readonly conf: Conf
}

export interface EnrollOptions {
  /** More keys of the network configuration. */
  readonly conf?: Conf
  readonly annotations?: Readonly<Record<string, string>>
  /** What the main plugin would have assigned, as `ip/prefix`: makes a prevResult. */
  readonly assigned?: readonly string[]
  readonly containerId?: string
  /** Default eth0. */
  readonly ifname?: string
}

let created = 0

/** Disposing it withdraws the pods and removes pins, processes, cgroups and network namespaces. */
export class Mesh implements AsyncDisposable {
  /** Folder of the pins. */
  readonly bpffs: string
  /** Where capture happens; `pods` and `proxy` are below it. */
  readonly cgroup: Cgroup
  /** Where clients and servers run. */
  readonly pods: Cgroup
  /** Where proxies run. */
  readonly proxy: Cgroup
  readonly hosts: readonly LanHost[]
  readonly #stack: AsyncDisposableStack
  readonly #sharedProxy: LanHost | undefined
  readonly #logFile: string
  readonly #enrolled = new Set<Enrolled>()
  readonly #standins: ZtunnelStandin[] = []

  private constructor(hosts: readonly LanHost[], { sharedProxy }: MeshOptions, stack: AsyncDisposableStack) {
    const name = `ambt${process.pid}-${++created}`
    const logDir = `${tmpdir()}/${name}-mesh`
    stack.defer(own({ kind: 'dir', path: logDir }))
    mkdirSync(logDir)
    this.#logFile = `${logDir}/cni.log`
    this.bpffs = `/sys/fs/bpf/${name}`
    stack.defer(own({ kind: 'dir', path: this.bpffs }))
    this.cgroup = stack.use(Cgroup.create())
    this.pods = this.cgroup.child('pods')
    this.proxy = this.cgroup.child('proxy')
    this.hosts = hosts
    this.#sharedProxy = sharedProxy === undefined ? undefined : this.host(sharedProxy)
    this.#stack = stack
  }

  static async create(options: MeshOptions = {}): Promise<Mesh> {
    if (!isBpffs('/sys/fs/bpf')) await run('mount', ['-t', 'bpf', 'bpf', '/sys/fs/bpf'])
    const stack = new AsyncDisposableStack()
    try {
      const { hosts } = stack.use(await lan(options.hosts ?? 2))
      const mesh = new Mesh(hosts, options, stack)
      await mesh.load(options.load)
      stack.defer(async () => void (await mesh.ambridge('unload')))
      return mesh
    } catch (err) {
      await stack.disposeAsync()
      throw err
    }
  }

  /** From 0. */
  host(index: number): LanHost {
    const host = this.hosts[index]
    if (!host) throw new Error(`no host ${index}: the mesh has ${this.hosts.length}`)
    return host
  }

  /** For programs of a pod. */
  at({ netns }: Host): Where {
    return { netns, cgroupDir: this.pods.dir }
  }

  /** `ambridge COMMAND` on the own pins. */
  ambridge(command: string, args: readonly string[] = []): Promise<string> {
    return ambridge([command, '--bpffs', this.bpffs, ...args])
  }

  /** Also again, with other options. */
  load(args: readonly string[] = []): Promise<string> {
    const shared = this.#sharedProxy ? ['--shared-proxy-netns', this.#sharedProxy.netns.path] : []
    const cgroups = ['--cgroup', this.cgroup.dir, '--proxy-cgroup', this.proxy.dir]
    return this.ambridge('load', [...cgroups, ...shared, ...args])
  }

  status(): Promise<Status> {
    return ambridgeJson<Status>(['status', '--bpffs', this.bpffs])
  }

  async statusOf({ containerId, ifname }: Enrolled): Promise<PodStatus | undefined> {
    const { pods } = await this.status()
    return pods.find((pod) => pod.containerId === containerId && pod.ifname === ifname)
  }

  async countersOf(pod: Enrolled): Promise<PodStatus['counters']> {
    return (await this.statusOf(pod))?.counters ?? {}
  }

  /** Network configuration that enrolls every pod. */
  conf({ conf = {}, annotations, assigned }: EnrollOptions = {}): Conf {
    return {
      cniVersion: '1.0.0',
      name: 'test',
      type: 'ambridge',
      bpffs: this.bpffs,
      logFile: this.#logFile,
      enrollment: { source: 'static', all: true },
      ...(this.#sharedProxy ? { mode: 'ambient-shared' } : {}),
      ...(annotations ? { runtimeConfig: { 'io.kubernetes.cri.pod-annotations': annotations } } : {}),
      ...(assigned ? { prevResult: prevResult(assigned) } : {}),
      ...conf,
    }
  }

  /** ADD, then hand the pod to the stand-ins that run. */
  async enroll({ netns }: Host, options: EnrollOptions = {}): Promise<Enrolled> {
    const { containerId = netns.name, ifname = 'eth0' } = options
    const pod = { containerId, ifname, netns: netns.path, conf: this.conf(options) }
    this.#stack.defer(() => this.withdraw(pod))
    this.#enrolled.add(pod)
    await cni('ADD', pod)
    if (this.#sharedProxy) return pod
    for (const standin of this.#standins) if (!standin.daemon.hasExited()) await standin.add(pod.netns)
    return pod
  }

  /** DEL, once. */
  async withdraw(pod: Enrolled): Promise<void> {
    if (this.#enrolled.delete(pod)) await cni('DEL', pod)
  }

  /** A proxy that serves the pods that are enrolled now, and those to come. */
  async startStandin(options: StandinOptions = {}): Promise<ZtunnelStandin> {
    const proxy = this.#sharedProxy
    const shared = proxy ? { netns: proxy.netns, shared: { ipv4: proxy.ipv4, ipv6: proxy.ipv6 } } : {}
    const standin = await ZtunnelStandin.start({ cgroupDir: this.proxy.dir, ...shared, ...options })
    this.#stack.use(standin)
    this.#standins.push(standin)
    if (proxy) return standin
    for (const path of new Set([...this.#enrolled].map((pod) => pod.netns))) await standin.add(path)
    return standin
  }

  /** A server of a pod. `args`: more options of `sock serve`. */
  async serve(
    host: Host,
    name: string,
    ports: readonly number[],
    args: readonly string[] = [],
  ): Promise<SockServer> {
    return this.#stack.use(await SockServer.start({ ...this.at(host), ports, name, args }))
  }

  dispose(): Promise<void> {
    return this.#stack.disposeAsync()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose()
  }
}

function prevResult(addresses: readonly string[]): object {
  return { cniVersion: '1.0.0', ips: addresses.map((address) => ({ address })) }
}

/** The connections that a stand-in gets from now on. */
export function watch(standin: ZtunnelStandin): () => ProxyConnection[] {
  const earlier = standin.connections().length
  return () => standin.connections().slice(earlier)
}

/** `ip:port` as the tools print it. */
export function endpoint(ip: string, port: number): string {
  return ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`
}

/** The address in `ip:port`. */
export function ipOf(text: string | null | undefined): string {
  return (text ?? '').replace(/:\d+$/, '').replace(/[[\]]/g, '')
}

export function portOf(text: string | null | undefined): number {
  return Number(/:(\d+)$/.exec(text ?? '')?.[1])
}
