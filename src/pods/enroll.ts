// SPDX-License-Identifier: Apache-2.0
/** Makes a pod part of the mesh on this node: netns, cgroup, maps and link together. */
import { dirname } from 'node:path/posix'
import { canonicalAddress, isIpv4 } from '../address.ts'
import { attachGuard } from '../bpf/guard.ts'
import { attachInbound, isInboundAlive, upgradeInbound } from '../bpf/inbound.ts'
import { type AttachmentKey, attachmentsOf, register, requireSettings } from '../bpf/pods.ts'
import { type CapturePolicy, modeOf, type PrimaryAddresses } from '../bpf/policy.ts'
import { CgroupRole, Store } from '../bpf/store.ts'
import { pinPaths } from '../linux/bpffs.ts'
import { cgroup2Root, cgroupId, cgroupLevel, findPodCgroup } from '../linux/cgroup.ts'
import { hostNetnsIdentity, isSameNetns, type Netns } from '../linux/netns.ts'
import { isThere, removeFile } from '../linux/path.ts'
import type { InterfaceAddress } from '../linux/rtnetlink.ts'
import { RemedyError } from '../remedy.ts'
import { requireLoaded } from './loaded.ts'
import { openNetns } from './open-netns.ts'
import { guardPin, guardPins, linkPin, withdrawFrom } from './withdraw.ts'

export interface EnrollRequest {
  readonly key: AttachmentKey
  /** A path, or one that stays the caller's, who must not hold its lock. */
  readonly netns: Netns | string
  /** The netns may be the caller's own. */
  readonly allowOwnNetns: boolean
  /**
   * Those that are the pod's for sure: as far as known, from the result of the plugin that made the interface; of a running
   * pod, those that the API server knows.
   */
  readonly addresses: readonly string[]
  readonly pod: { readonly uid: string; readonly namespace: string; readonly name: string }
  /** As the runtime passes it. */
  readonly cgroupPath?: string
  readonly policy: CapturePolicy
}

/**
 * All or nothing: a failure takes back what was done. A pod that was registered before stays so, for it runs: it must not talk
 * past the mesh because a repair failed. Gives the cookie of the netns.
 */
export function enroll(request: EnrollRequest, bpffs: string): bigint {
  // A lock goes with its open file, and must not outlast this.
  using netns = openNetns(request.netns)
  if (!request.allowOwnNetns && isSameNetns(netns.identity, hostNetnsIdentity())) {
    const message = `network namespace ${netns.path} is the node's own`
    throw new RemedyError(message, 'pass the netns of the pod in CNI_NETNS', { kind: 'own-netns' })
  }
  requireLoaded(bpffs)
  netns.lock()
  using store = new Store(pinPaths(bpffs).maps)
  requireProxy(store, request.policy)
  const cookie = netns.cookie()
  const known = store.attachments.get(request.key)?.netns
  try {
    // The same attachment in another netns: its DEL never came.
    if (known !== undefined && known !== cookie) withdrawFrom(store, request.key, bpffs)
    enrollLocked(store, netns, cookie, request, bpffs)
  } catch (err) {
    if (known !== cookie) takeBack(store, request.key, bpffs)
    throw err
  }
  return cookie
}

/** Why a pod was not enrolled must not be hidden by what then could not be taken back: its DEL tries that again. */
function takeBack(store: Store, key: AttachmentKey, bpffs: string): void {
  try {
    withdrawFrom(store, key, bpffs)
  } catch {
    // The first failure is the cause of this one, too.
  }
}

function enrollLocked(
  store: Store,
  netns: Netns,
  cookie: bigint,
  request: EnrollRequest,
  bpffs: string,
): void {
  const { key, policy, pod } = request
  const found = netns.addresses().filter(({ scope }) => scope !== 'loopback')
  const addresses = [
    ...new Set([...request.addresses, ...found.map(({ address }) => address)].map(canonicalAddress)),
  ]
  const cgroup = podCgroup(store, request)
  const wasKnown = register(store, {
    key,
    netns: { cookie, ...netns.identity },
    addresses: requireRoom(addresses),
    assigned: request.addresses.map(canonicalAddress),
    primary: primaryAddresses(found, request),
    ...(cgroup === undefined ? {} : { cgroup }),
    pod,
    policy,
  })
  const { maps: mapsDir } = pinPaths(bpffs)
  if (policy.egressGuard) guard(netns, cookie, found, request, bpffs)
  const pinPath = linkPin(bpffs, key)
  // To look for attachments of the same netns is to read all of the node.
  const links = wasKnown ? attachmentsOf(store, cookie).map(([other]) => linkPin(bpffs, other)) : []
  const live = links.find((link) => isThere(link) && isInboundAlive(link, netns.identity.ino))
  const program = { cookie, mode: modeOf(policy), mapsDir }
  if (live !== undefined) upgradeInbound({ ...program, pinPath: live })
  else {
    removeFile(pinPath)
    attachInbound({ ...program, netnsFd: netns.fd, pinPath })
  }
}

/** Interfaces that another attachment guards already are left to it. */
function guard(
  netns: Netns,
  cookie: bigint,
  found: readonly InterfaceAddress[],
  request: EnrollRequest,
  bpffs: string,
) {
  const { key } = request
  for (const pin of guardPins(bpffs, key)) removeFile(pin)
  const outside = found.filter(({ internal }) => !internal)
  const own = outside.filter(({ ifname }) => ifname === key.ifname)
  attachGuard({
    cookie,
    ifindexes: [...new Set((own.length > 0 ? own : outside).map(({ ifindex }) => ifindex))],
    inNetns: (fn) => netns.run(fn),
    pinPath: (ifindex) => guardPin(bpffs, key, ifindex),
    mapsDir: pinPaths(bpffs).maps,
  })
}

function requireProxy(store: Store, { mode, egressGuard }: CapturePolicy): void {
  const { sharedNetns, sidecar, guard } = requireSettings(store)
  if (egressGuard && guard === 0) {
    throw new RemedyError('the programs are not attached for egressGuard', 'run: ambridge load --guard')
  }
  if (mode === 'ambient-shared' && sharedNetns === 0n) {
    const remedy = 'name the netns of the shared ztunnel: ambridge load --shared-proxy-netns PATH'
    throw new RemedyError('no proxy is known for mode ambient-shared', remedy)
  }
  if (mode === 'sidecar' && sidecar === 0) {
    throw new RemedyError('the programs are not attached for mode sidecar', 'run: ambridge load --sidecar')
  }
}

/** MAX_POD_ADDRS in bpf/layout.h */
const maxAddresses = 32

function requireRoom(addresses: readonly string[]): readonly string[] {
  if (addresses.length <= maxAddresses) return addresses
  const message = `the pod has ${addresses.length} addresses, at most ${maxAddresses} can be registered`
  throw new RemedyError(message, 'give the pod fewer addresses')
}

/**
 * Where captured connections are redirected to: of each family the first address that the runtime named, else of the
 * attachment's own interface, else of any. Link-local ones do not do: connect() to them needs an interface.
 */
function primaryAddresses(
  found: readonly InterfaceAddress[],
  { key, addresses }: EnrollRequest,
): PrimaryAddresses {
  const usable = found.filter(({ scope, internal }) => scope === 'global' && !internal)
  const own = usable.filter(({ ifname }) => ifname === key.ifname)
  const inOrder = [
    ...addresses,
    ...own.map(({ address }) => address),
    ...usable.map(({ address }) => address),
  ]
  const canonical = inOrder.map(canonicalAddress)
  return { ipv4: canonical.find(isIpv4) ?? '', ipv6: canonical.find((address) => !isIpv4(address)) ?? '' }
}

/** A pod whose cgroup is known must lie where the programs are attached: elsewhere nothing that it dials is captured. */
function podCgroup(store: Store, { cgroupPath, pod }: EnrollRequest) {
  if (cgroupPath === undefined && pod.uid === '') return undefined
  const root = cgroup2Root()
  if (root === undefined) return undefined
  const dir = findPodCgroup(root, { cgroupPath, podUid: pod.uid || undefined })
  if (dir === undefined) return undefined
  const { captureCgroup } = requireSettings(store)
  const above = ancestors(root, dir).map(cgroupId)
  if (!above.includes(captureCgroup)) {
    const remedy = 'attach the programs to a cgroup that holds every pod: ambridge load --cgroup PATH'
    throw new RemedyError(`cgroup ${dir} of the pod is outside of the captured cgroup`, remedy)
  }
  if (above.some((id) => store.cgroups.get(id)?.role === CgroupRole.proxy)) {
    const remedy = 'name a cgroup that holds the proxy alone: ambridge load --proxy-cgroup PATH'
    throw new RemedyError(`cgroup ${dir} of the pod is in a proxy's cgroup`, remedy)
  }
  return { id: cgroupId(dir), level: cgroupLevel(root, dir) }
}

/** The directory itself first, the root last. */
function ancestors(root: string, dir: string): string[] {
  return dir === root ? [root] : [dir, ...ancestors(root, dirname(dir))]
}
