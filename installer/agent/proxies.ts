// SPDX-License-Identifier: Apache-2.0
/** Who may be ztunnel: decided by what the kernel says of the process that connects, not by a label. */
import { readFileSync } from 'node:fs'
import { requireSettings } from '../../src/bpf/pods.ts'
import { CgroupRole, ProxyIdentity, Store } from '../../src/bpf/store.ts'
import type { Cluster } from '../../src/k8s/cluster.ts'
import { pinPaths } from '../../src/linux/bpffs.ts'
import { cgroup2Root, cgroupDirOf, cgroupId } from '../../src/linux/cgroup.ts'
import { isThere } from '../../src/linux/path.ts'
import { parseCgroups, startTimeOf } from '../../src/linux/procs.ts'
import { RemedyError } from '../../src/remedy.ts'
import { cgroupDirs } from '../programs/cgroups.ts'
import { load } from '../programs/load.ts'
import type { LoadOptions } from '../programs/settings.ts'
import type { AgentOptions } from './options.ts'

export type ProxyRules = Pick<AgentOptions, 'load' | 'ztunnel'>

/** The ztunnels of this node. */
export class Proxies {
  readonly #cluster: Cluster
  readonly #rules: ProxyRules
  /** By process id; another process of that id has started at another time. */
  readonly #admitted = new Map<number, { startTime: bigint | undefined; dir: string | undefined }>()

  constructor(cluster: Cluster, rules: ProxyRules) {
    this.#cluster = cluster
    this.#rules = rules
  }

  /**
   * Lets the process be the proxy of this node's pods. In a pod, it has to be one of ztunnel's service account; outside of
   * pods, root of the node is trusted. Throws RemedyError otherwise.
   */
  admit(pid: number): void {
    if (pid === 0) {
      const remedy = 'run the agent in the pid namespace of the host: hostPID: true'
      throw new RemedyError('the process that connects is not to be seen from here', remedy)
    }
    const startTime = startTimeOf(pid)
    const { podUid, cgroup } = parseCgroups(readFileSync(`/proc/${pid}/cgroup`, 'utf8'))
    if (podUid !== undefined) requireZtunnel(podUid, this.#cluster, this.#rules.ztunnel)
    const path = podUid === undefined ? cgroup : podCgroup(cgroup, podUid)
    this.#admitted.set(pid, { startTime, dir: registerProxy(path, { pid, podUid }, this.#rules.load) })
  }

  /** Of those that were admitted and are alive. */
  pids(): number[] {
    for (const [pid, { startTime }] of this.#admitted) {
      if (startTimeOf(pid) !== startTime) this.#admitted.delete(pid)
    }
    return [...this.#admitted.keys()]
  }

  /** Theirs, which `load` has to know where the programs were unloaded. */
  cgroups(): string[] {
    const dirs = this.pids().map((pid) => this.#admitted.get(pid)?.dir)
    return [...new Set(dirs)].filter((dir) => dir !== undefined && isThere(dir)) as string[]
  }
}

function requireZtunnel(
  podUid: string,
  cluster: Cluster,
  { namespace, serviceAccount }: ProxyRules['ztunnel'],
): void {
  const pod = cluster.pods().find(({ uid, configHash }) => uid === podUid || configHash === podUid)
  const wanted = `service account ${namespace}/${serviceAccount}`
  if (pod === undefined) {
    throw new RemedyError(
      `the API server does not name pod ${podUid} on this node yet`,
      'it is asked again when it connects again',
    )
  }
  if (pod.namespace === namespace && pod.serviceAccount === serviceAccount) return
  const who = `pod ${pod.namespace}/${pod.name} has service account ${pod.namespace}/${pod.serviceAccount}`
  throw new RemedyError(`${who}, ztunnel has ${wanted}`, "name ztunnel's: --ztunnel NAMESPACE/SERVICEACCOUNT")
}

/** The part of the path that is the pod's: containers of ztunnel come and go below it. */
function podCgroup(path: string, podUid: string): string {
  const parts = path.split('/')
  const isPod = (part: string) => part.replaceAll('_', '-').includes(`pod${podUid}`)
  const at = parts.findIndex(isPod)
  return at < 0 ? path : parts.slice(0, at + 1).join('/')
}

interface Process {
  readonly pid: number
  readonly podUid: string | undefined
}

/** Gives the directory; undefined where proxies are told by their mark. */
function registerProxy(path: string, proxy: Process, options: LoadOptions): string | undefined {
  const root = cgroup2Root()
  const dir = root === undefined ? undefined : cgroupDirOf(root, path)
  using store = new Store(pinPaths(options.bpffs).maps)
  if (requireSettings(store).defaultIdentity === ProxyIdentity.mark) return undefined
  if (dir === undefined) {
    throw new RemedyError(
      `no cgroup of process ${proxy.pid} below the cgroup v2 mount: ${path}`,
      'mount /sys/fs/cgroup of the host',
    )
  }
  requireOwnCgroup(dir, proxy, store)
  if (store.cgroups.get(cgroupId(dir))?.role !== CgroupRole.proxy) load({ ...options, proxyCgroups: [dir] })
  return dir
}

/** A proxy's cgroup that holds pods, too, would let them all past the proxy. */
function requireOwnCgroup(dir: string, { pid, podUid }: Process, store: Store): void {
  const below = cgroupDirs(dir)
  const isOther = (path: string) => ![undefined, podUid].includes(parseCgroups(`0::${path}`).podUid)
  const holdsPods =
    below.has(requireSettings(store).captureCgroup) ||
    store.cgroups.entries().some(([id, { role }]) => role === CgroupRole.pod && below.has(id)) ||
    [...below.values()].some(isOther)
  if (!holdsPods) return
  const remedy =
    'start ztunnel in a cgroup of its own, as a pod has, or tell proxies by their mark: --proxy-identity mark'
  throw new RemedyError(`process ${pid} is in cgroup ${dir}, which holds captured pods, too`, remedy)
}
