// SPDX-License-Identifier: Apache-2.0
/** What a node is to look like after `ambridge load`: options that are not given keep what is loaded. */
import { statSync } from 'node:fs'
import { requireSettings } from '../../src/bpf/pods.ts'
import { CgroupRole, ProbeMode, ProxyIdentity, type Settings, type Store } from '../../src/bpf/store.ts'
import { cgroupId, cgroupLevel } from '../../src/linux/cgroup.ts'
import { Netns } from '../../src/linux/netns.ts'
import { RemedyError } from '../../src/remedy.ts'
import { captureCgroup, cgroupDir, cgroupDirs, isBelow, requireCgroupRoot } from './cgroups.ts'
import { captureHooks, guardHook, probeHook, proxyHooks } from './hooks.ts'
import type { WantedLink } from './links.ts'
import type { Report } from './report.ts'

export const probeModes = ['kubelet', 'uid', 'any-host-socket', 'off'] as const

export interface LoadOptions {
  readonly bpffs: string
  /** `auto` or a path. */
  readonly cgroup?: string
  readonly proxyIdentity?: 'cgroup' | 'mark'
  readonly proxyCgroups: readonly string[]
  readonly sharedProxyNetns?: string
  readonly probes?: (typeof probeModes)[number]
  readonly kubeletCgroup?: string
  readonly kubeletUid?: number
  readonly sidecar?: boolean
  readonly guard?: boolean
}

export interface Plan {
  readonly settings: Settings
  readonly links: readonly WantedLink[]
  readonly summary: string
  /** Makes the map of cgroups hold those that are in use. */
  registerCgroups(report: Report): void
}

interface Proxy {
  readonly dir: string
  readonly id: bigint
  readonly level: number
}

/** Deepest level that the programs look at: MAX_CGROUP_LEVEL in bpf/common.h. */
const maxLevel = 15

export function planFor(options: LoadOptions, store: Store): Plan {
  const root = requireCgroupRoot()
  const capture = captureCgroup(options.cgroup ?? knownCapture(store, root) ?? 'auto')
  const proxies = findProxies(options, store, root)
  const kubelet = kubeletCgroup(options, store, root)
  const settings = {
    ...settingsFor(options, store.settings.get(0), proxies),
    captureCgroup: cgroupId(capture),
  }
  const links = linksFor(settings, capture, proxies, () => kubelet ?? usualProbeCgroup(settings.probes, root))
  const identity = settings.defaultIdentity === ProxyIdentity.mark ? 'mark' : 'cgroup'
  return {
    settings,
    links,
    summary: `capture in ${capture}, proxy identity ${identity}${hint(settings, proxies)}`,
    registerCgroups: (report) => {
      registerProxies(store, proxies, report)
      registerKubelet(store, kubelet, root)
    },
  }
}

function hint({ defaultIdentity }: Settings, proxies: readonly Proxy[]): string {
  if (defaultIdentity !== ProxyIdentity.cgroup || proxies.length > 0) return ''
  return ' (no proxy yet: what enrolled pods dial is refused until --proxy-cgroup names one)'
}

function knownCapture(store: Store, root: string): string | undefined {
  const { captureCgroup: id } = requireSettings(store)
  return id === 0n ? undefined : cgroupDirs(root).get(id)
}

/** The named ones, and those that were named earlier and are still there. */
function findProxies({ proxyCgroups }: LoadOptions, store: Store, root: string): Proxy[] {
  const named = proxyCgroups.map((path) => cgroupDir(root, path, '--proxy-cgroup'))
  const known = store.cgroups.entries().filter(([, { role }]) => role === CgroupRole.proxy)
  const dirs = known.length === 0 ? new Map<bigint, string>() : cgroupDirs(root)
  const kept = known.flatMap(([id]) => dirs.get(id) ?? [])
  return [...new Set([...named, ...kept])].map((dir) => {
    const level = cgroupLevel(root, dir)
    if (level <= maxLevel) return { dir, id: cgroupId(dir), level }
    const remedy = `name a cgroup at most ${maxLevel} levels below ${root}`
    throw new RemedyError(`--proxy-cgroup: ${dir} is ${level} levels deep`, remedy)
  })
}

function registerProxies(store: Store, proxies: readonly Proxy[], report: Report): void {
  const ids = new Set(proxies.map(({ id }) => id))
  for (const [id, { role }] of store.cgroups.entries()) {
    if (role !== CgroupRole.proxy || ids.has(id)) continue
    store.cgroups.delete(id)
    report('proxy', `cgroup ${id}`, 'removed: it is gone')
  }
  for (const { dir, id, level } of proxies) {
    const known = store.cgroups.get(id)?.role === CgroupRole.proxy
    store.cgroups.set(id, { netns: 0n, role: CgroupRole.proxy, level })
    report('proxy', dir, known ? 'already there' : 'registered')
  }
}

const identities = { cgroup: ProxyIdentity.cgroup, mark: ProxyIdentity.mark }
const probes = {
  kubelet: ProbeMode.kubelet,
  uid: ProbeMode.uid,
  'any-host-socket': ProbeMode.anyHostSocket,
  off: ProbeMode.off,
}

function settingsFor(
  options: LoadOptions,
  known: Settings | undefined,
  proxies: readonly Proxy[],
): Omit<Settings, 'captureCgroup'> {
  const isFirst = known === undefined || known.defaultIdentity === 0
  const identity = options.proxyIdentity === undefined ? undefined : identities[options.proxyIdentity]
  const probe = options.probes === undefined ? undefined : probes[options.probes]
  const shared = options.sharedProxyNetns === undefined ? undefined : sharedProxy(options.sharedProxyNetns)
  const sidecar = options.sidecar === undefined ? undefined : Number(options.sidecar)
  const guard = options.guard === undefined ? undefined : Number(options.guard)
  return {
    hostNetns: netnsCookie('/proc/self/ns/net'),
    sharedNetns: shared?.cookie ?? known?.sharedNetns ?? 0n,
    shared4: shared?.ipv4 ?? known?.shared4 ?? '',
    shared6: shared?.ipv6 ?? known?.shared6 ?? '',
    proxyLevels: proxies.reduce((bits, { level }) => bits | (1 << level), 0),
    kubeletUid: options.kubeletUid ?? known?.kubeletUid ?? 0,
    objects: known?.objects ?? 0,
    probes: probe ?? (isFirst ? ProbeMode.off : known.probes),
    defaultIdentity: identity ?? (isFirst ? ProxyIdentity.cgroup : known.defaultIdentity),
    sidecar: sidecar ?? known?.sidecar ?? 0,
    guard: guard ?? known?.guard ?? 0,
  }
}

function netnsCookie(path: string): bigint {
  using netns = Netns.open(path)
  return netns.cookie()
}

function sharedProxy(path: string) {
  using netns = Netns.open(path)
  const usable = netns.addresses().filter(({ scope, internal }) => scope === 'global' && !internal)
  if (usable.length === 0) {
    const remedy = 'start the proxy pod first: captured connections are sent to its address'
    throw new RemedyError(`--shared-proxy-netns: ${path} has no address`, remedy)
  }
  const first = (family: 4 | 6) => usable.find((address) => address.family === family)?.address ?? ''
  return { cookie: netns.cookie(), ipv4: first(4), ipv6: first(6) }
}

function linksFor(
  { defaultIdentity, sidecar, guard, probes: probe }: Settings,
  capture: string,
  proxies: readonly Proxy[],
  probeCgroup: () => string,
): WantedLink[] {
  const outside = proxies.map(({ dir }) => dir).filter((dir) => !isBelow(dir, capture))
  const captured = [capture, ...outermost(outside)]
  const isWide = defaultIdentity === ProxyIdentity.mark || sidecar !== 0
  // The hooks of a proxy would run twice for one below a cgroup that has them already.
  const proxyDirs = isWide ? captured : outermost(proxies.map(({ dir }) => dir))
  const at = (dirs: readonly string[], hooks: typeof captureHooks) =>
    dirs.flatMap((cgroup) => hooks.map((hook) => ({ ...hook, cgroup })))
  const probeDirs = probe === ProbeMode.off ? [] : [probeCgroup()]
  return [
    ...at(captured, captureHooks),
    ...at(proxyDirs, proxyHooks),
    ...at(guard === 0 ? [] : captured, [guardHook]),
    ...at(probeDirs, [probeHook]),
  ]
}

/** Without those that lie below another. */
function outermost(dirs: readonly string[]): string[] {
  return dirs.filter((dir) => !dirs.some((other) => other !== dir && isBelow(dir, other)))
}

/** The named one, or the one that was named earlier and is still there. */
function kubeletCgroup({ kubeletCgroup: path }: LoadOptions, store: Store, root: string): string | undefined {
  if (path !== undefined) return cgroupDir(root, path, '--kubelet-cgroup')
  const known = store.cgroups.entries().find(([, { role }]) => role === CgroupRole.kubelet)
  return known === undefined ? undefined : cgroupDirs(root).get(known[0])
}

function registerKubelet(store: Store, dir: string | undefined, root: string): void {
  for (const [id, { role }] of store.cgroups.entries()) {
    if (role === CgroupRole.kubelet) store.cgroups.delete(id)
  }
  if (dir === undefined) return
  // A proxy's cgroup stays one.
  store.cgroups.insert(cgroupId(dir), { netns: 0n, role: CgroupRole.kubelet, level: cgroupLevel(root, dir) })
}

/** Where the probes program is attached when nobody named a cgroup. */
function usualProbeCgroup(probe: number, root: string): string {
  if (probe !== ProbeMode.kubelet) return root
  const usual = ['system.slice/kubelet.service', 'kubelet.slice', 'kubelet'].map((path) => `${root}/${path}`)
  const found = usual.find((dir) => statSync(dir, { throwIfNoEntry: false })?.isDirectory())
  if (found !== undefined) return found
  const remedy = 'name it: --kubelet-cgroup PATH; or choose --probes uid, any-host-socket or off'
  throw new RemedyError('--probes kubelet: no cgroup that holds the kubelet alone was found', remedy)
}
