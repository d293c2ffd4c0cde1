// SPDX-License-Identifier: Apache-2.0
/** What the maps know about pods: written by ADD, taken back by DEL. An attachment's own entry comes first and goes last. */
import { addressBytes } from '../address.ts'
import { CgroupRole, Outcome, type Pod, PodFlag } from './layout.gen.ts'
import { type CapturePolicy, type PrimaryAddresses, podEntry, rulesEntry } from './policy.ts'
import type { Store } from './store.ts'

export interface AttachmentKey {
  readonly containerId: string
  readonly ifname: string
}

export interface Registration {
  readonly key: AttachmentKey
  /** Cookie, device and inode. */
  readonly netns: { readonly cookie: bigint; readonly dev: bigint; readonly ino: bigint }
  /** All of them, link-local ones included. */
  readonly addresses: readonly string[]
  /** Those that the runtime says are the pod's; the others were found in its netns, where the pod may claim any. */
  readonly assigned: readonly string[]
  readonly primary: PrimaryAddresses
  readonly cgroup?: { readonly id: bigint; readonly level: number }
  readonly pod: { readonly uid: string; readonly namespace: string; readonly name: string }
  readonly policy: CapturePolicy
}

/** In the maps, a pod address of this netns is one that its node asks for. */
const nodeScope = 0n

/**
 * From the last write on, the pod is captured. Throws at the first write that fails; `unregister` then takes back the rest.
 * Returns whether the pod was registered before, by this attachment or another.
 */
export function register(store: Store, registration: Registration): boolean {
  const { key, netns, addresses, assigned, primary, cgroup, pod, policy } = registration
  const { cookie } = netns
  store.openForPod()
  const known = store.pods.get(cookie)
  // First of all, so that `unregister` looks for the other attachments even if the next write fails.
  if (known !== undefined) store.pods.set(cookie, { ...known, flags: known.flags | PodFlag.several })
  store.attachments.set(key, {
    netns: cookie,
    netnsDev: netns.dev,
    netnsIno: netns.ino,
    cgroupId: cgroup?.id ?? 0n,
    addrs: addresses,
    podUid: clip(pod.uid, 64),
    podNamespace: clip(pod.namespace, 64),
    podName: clip(pod.name, 256),
  })
  for (const addr of addresses) {
    store.podAddrs.set({ netns: cookie, addr }, cookie)
    if (!isLinkLocal(addr)) claimInNode(store, addr, cookie, assigned.includes(addr))
  }
  if (cgroup !== undefined) {
    store.cgroups.insert(cgroup.id, { netns: cookie, role: CgroupRole.pod, level: cgroup.level })
  }
  store.pending.insert(cookie, 0n)
  if (policy.sidecar !== undefined) store.rules.set(cookie, rulesEntry(policy.sidecar))
  const { defaultIdentity } = requireSettings(store)
  const entry = merge(known, podEntry(policy, primary, defaultIdentity))
  store.pods.set(cookie, withSecondary(entry, addresses))
  return known !== undefined
}

/** An address that was only found does not take the place of another enrolled pod. */
function claimInNode(store: Store, addr: string, cookie: bigint, isAssigned: boolean): void {
  const key = { netns: nodeScope, addr }
  const owner = store.podAddrs.get(key)
  if (isAssigned || owner === undefined || store.pods.get(owner) === undefined)
    store.podAddrs.set(key, cookie)
}

/** A second interface of a pod does not change its primary addresses. */
function merge(known: Pod | undefined, entry: Pod): Pod {
  if (known === undefined) return entry
  const flags = entry.flags | PodFlag.several | (known.flags & PodFlag.secondary)
  return { ...entry, flags, own4: known.own4 || entry.own4, own6: known.own6 || entry.own6 }
}

/** Tells the programs whether they have to ask the map for an address that is not a primary one. */
function withSecondary(entry: Pod, addresses: readonly string[]): Pod {
  const isKnown = (address: string) => [entry.own4, entry.own6].includes(address) || isLinkLocal6(address)
  return addresses.every(isKnown) ? entry : { ...entry, flags: entry.flags | PodFlag.secondary }
}

/** Idempotent. The pod stays captured while another of its attachments is registered: that one is returned. */
export function unregister(store: Store, key: AttachmentKey): AttachmentKey | undefined {
  const attachment = store.attachments.get(key)
  if (attachment === undefined) return undefined
  const { netns, addrs, cgroupId } = attachment
  const siblings = siblingsOf(store, key, netns)
  if (siblings.length === 0) forgetPod(store, netns, cgroupId)
  const shared = new Set(siblings.flatMap(([, sibling]) => sibling.addrs))
  for (const addr of addrs) {
    if (addr === '' || shared.has(addr)) continue
    store.podAddrs.delete({ netns, addr })
    // By now the address may be another pod's.
    const inNode = { netns: nodeScope, addr }
    if (store.podAddrs.get(inNode) === netns) store.podAddrs.delete(inNode)
  }
  store.attachments.delete(key)
  return siblings[0]?.[0]
}

/** Other attachments of the same netns. To look for them is to read all of the node, so mostly this does not. */
function siblingsOf(store: Store, key: AttachmentKey, netns: bigint) {
  const pod = store.pods.get(netns)
  if (pod !== undefined && (pod.flags & PodFlag.several) === 0) return []
  return attachmentsOf(store, netns).filter(([other]) => !isSame(other, key))
}

function forgetPod(store: Store, netns: bigint, cgroupId: bigint): void {
  const pod = store.pods.get(netns)
  store.pods.delete(netns)
  store.rules.delete(netns)
  if (store.cgroups.get(cgroupId)?.netns === netns) store.cgroups.delete(cgroupId)
  for (const outcome of Object.values(Outcome)) store.counters.delete({ netns, outcome })
  for (const port of pod === undefined ? [] : [pod.outboundPort, pod.inboundPort, pod.hbonePort]) {
    for (const family of [4, 6]) store.listenerNext.delete({ netns, port, family, slot: 0 })
  }
  if ((store.pending.get(netns) ?? 0n) > 0n) forgetHandshakes(store, netns)
  store.pending.delete(netns)
}

/** Of sockets that outlive their pod's registration. */
function forgetHandshakes(store: Store, netns: bigint): void {
  for (const [flow, { owner }] of store.handshakes.entries())
    if (owner === netns) store.handshakes.delete(flow)
}

export function attachmentsOf(store: Store, netns: bigint) {
  return store.attachments.entries().filter(([, attachment]) => attachment.netns === netns)
}

export function requireSettings(store: Store) {
  const settings = store.settings.get(0)
  if (settings === undefined) throw new Error('the settings map is empty')
  return settings
}

/** Outcome name → count, over all CPUs; outcomes that never happened are left out. */
export function countersOf(store: Store, netns: bigint): Record<string, number> {
  const counts = Object.entries(Outcome).map(([name, outcome]): [string, number] => {
    const perCpu = store.counters.get({ netns, outcome }) ?? []
    return [name, Number(perCpu.reduce((sum, count) => sum + count, 0n))]
  })
  return Object.fromEntries(counts.filter(([, count]) => count > 0))
}

function isSame(a: AttachmentKey, b: AttachmentKey): boolean {
  return a.containerId === b.containerId && a.ifname === b.ifname
}

/** Not unique on a node. */
function isLinkLocal(address: string): boolean {
  return isLinkLocal6(address) || address.startsWith('169.254.')
}

/** fe80::/10 */
function isLinkLocal6(address: string): boolean {
  const bytes = addressBytes(address)
  return bytes[0] === 0xfe && ((bytes[1] ?? 0) & 0xc0) === 0x80
}

/** At most `size` bytes of UTF-8: for people to read, so a cut does no harm. */
function clip(text: string, size: number): string {
  let clipped = text
  while (Buffer.byteLength(clipped) > size) clipped = clipped.slice(0, -1)
  return clipped
}
