// SPDX-License-Identifier: Apache-2.0
/** All that pods leave on a node, as text: to compare what is there with what should be. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { Listeners } from '../../src/bpf/listeners.ts'
import { CgroupRole, Store } from '../../src/bpf/store.ts'
import { pinPaths } from '../../src/linux/bpffs.ts'
import { Netns } from '../../src/linux/netns.ts'
import type { AgentMesh } from './agent-mesh.ts'
import { redirection } from './agent-mesh.ts'
import type { PodIdentity, Sandbox } from './sandbox.ts'
import type { ZtunnelStandin } from './standin.ts'

/** A pod that should be there, enrolled or not. */
export interface WantedPod extends PodIdentity {
  readonly sandbox: Sandbox
  readonly isEnrolled: boolean
}

/** Lists are sorted. */
export type NodeState = Readonly<Record<string, readonly string[] | number>>

export function wantedState(pods: readonly WantedPod[]): NodeState {
  const enrolled = pods.filter(({ isEnrolled }) => isEnrolled)
  const each = (text: (pod: WantedPod) => string | string[]) => enrolled.flatMap(text).sort()
  const names = each(({ name }) => name)
  return {
    status: each(
      ({ namespace, name, uid, sandbox }) => `${namespace}/${name} ${uid} ${sandbox.containerId} alive`,
    ),
    attachments: each(({ name, sandbox }) => `${sandbox.containerId}:eth0 ${name}`),
    pins: each(({ sandbox }) => `${sandbox.containerId}:eth0`),
    pods: names,
    podAddrs: each(addressEntries),
    cgroups: names,
    pending: each(({ name }) => `${name} 0`),
    rules: [],
    handshakes: 0,
    countersOfOthers: [],
    listenersOfOthers: [],
    workloads: each(({ uid }) => uid),
    annotations: pods.map(({ name, isEnrolled }) => `${name} ${isEnrolled ? 'enabled' : ''}`).sort(),
    files: ['lib/enrollment.json', 'run/agent.sock', 'zds/ztunnel.sock'],
    plugins: [],
  }
}

/** Each in the pod's own scope, and those that are not link-local in the node's. */
function addressEntries({ name, sandbox }: WantedPod): string[] {
  using netns = Netns.open(sandbox.host.netns.path)
  const found = netns.addresses().filter(({ scope }) => scope !== 'loopback')
  return found.flatMap(({ address, scope }) => {
    return [`${name} ${address}`, ...(scope === 'link' ? [] : [`node ${address} ${name}`])]
  })
}

export async function actualState(
  field: AgentMesh,
  ztunnel: ZtunnelStandin,
  pods: readonly WantedPod[],
  containerIds: ReadonlySet<string>,
): Promise<NodeState> {
  const { mesh, api, agent } = field
  const status = (await mesh.status()).pods.map(({ namespace, name, uid, containerId, alive }) => {
    return `${namespace}/${name} ${uid} ${containerId} ${alive ? 'alive' : 'dead'}`
  })
  return {
    status: status.sort(),
    ...mapsOf(mesh.bpffs, pods),
    pins: readdirSync(pinPaths(mesh.bpffs).netns).sort(),
    workloads: workloadsOf(ztunnel),
    annotations: api.pods
      .all()
      .map(({ metadata: { name, annotations } }) => `${name} ${annotations[redirection] ?? ''}`)
      .sort(),
    files: ['lib', 'run', 'zds'].flatMap((dir) =>
      readdirSync(`${agent.dir}/${dir}`).map((name) => `${dir}/${name}`),
    ),
    plugins: pluginsOf(containerIds),
  }
}

function mapsOf(bpffs: string, pods: readonly WantedPod[]) {
  const { maps } = pinPaths(bpffs)
  using store = new Store(maps)
  using listeners = new Listeners(maps)
  const enrolled = pods.filter(({ isEnrolled }) => isEnrolled)
  const known = new Map(enrolled.map(({ name, sandbox }) => [sandbox.cookie, name]))
  const nameOf = (netns: bigint) => known.get(netns) ?? `netns ${netns}`
  const others = (netnses: readonly bigint[]) => [...new Set(netnses)].filter((each) => !known.has(each))
  return {
    attachments: store.attachments
      .entries()
      .map(([{ containerId, ifname }, { netns }]) => `${containerId}:${ifname} ${nameOf(netns)}`)
      .sort(),
    pods: store.pods.keys().map(nameOf).sort(),
    podAddrs: store.podAddrs
      .entries()
      .map(([{ netns, addr }, owner]) => (netns === 0n ? `node ${addr} ` : `${addr} of `) + nameOf(owner))
      .map((text) => text.replace(/^(\S+) of (.*)$/, '$2 $1'))
      .sort(),
    cgroups: store.cgroups
      .entries()
      .flatMap(([, { netns, role }]) => (role === CgroupRole.pod ? [nameOf(netns)] : []))
      .sort(),
    pending: store.pending
      .entries()
      .map(([netns, count]) => `${nameOf(netns)} ${count}`)
      .sort(),
    rules: store.rules.keys().map(nameOf),
    handshakes: store.handshakes.keys().length,
    countersOfOthers: others(store.counters.keys().map(({ netns }) => netns)).map(nameOf),
    listenersOfOthers: others(
      [...store.listenerNext.keys(), ...listeners.ports()].map(({ netns }) => netns),
    ).map(nameOf),
  }
}

/** What the node still has of a sandbox. */
export function tracesOf({ containerId, cookie }: Sandbox, bpffs: string): string[] {
  const { maps, netns } = pinPaths(bpffs)
  using store = new Store(maps)
  const traces = {
    attachment: store.attachments.get({ containerId, ifname: 'eth0' }) !== undefined,
    pod: store.pods.get(cookie) !== undefined,
    pending: store.pending.get(cookie) !== undefined,
    pin: existsSync(`${netns}/${containerId}:eth0`),
  }
  return Object.entries(traces).flatMap(([name, isThere]) => (isThere ? [name] : []))
}

/** By what it was told on its last connection. */
function workloadsOf(ztunnel: ZtunnelStandin): string[] {
  const events = ztunnel.zdsEvents()
  const served = new Set<string>()
  for (const { what, uid, error } of events.slice(
    events.findLastIndex((event) => event.what === 'connected'),
  )) {
    if (uid === null || error !== '') continue
    if (what === 'add' || what === 'keep') served.add(uid)
    if (what === 'del') served.delete(uid)
  }
  return [...served].sort()
}

/** Processes of the plugin that have not ended. */
function pluginsOf(containerIds: ReadonlySet<string>): string[] {
  return readdirSync('/proc').filter((pid) => {
    if (!/^\d+$/.test(pid)) return false
    try {
      const [, containerId = ''] =
        /(?:^|\0)CNI_CONTAINERID=([^\0]*)/.exec(readFileSync(`/proc/${pid}/environ`, 'utf8')) ?? []
      return containerIds.has(containerId)
    } catch {
      return false
    }
  })
}
