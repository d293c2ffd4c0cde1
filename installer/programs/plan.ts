// SPDX-License-Identifier: Apache-2.0
/** What a node is to look like after `ambridge load`: options that are not given keep what is loaded. */
import { statSync } from 'node:fs'
import { requireSettings } from '../../src/bpf/pods.ts'
import { CgroupRole, ProbeMode, ProxyIdentity, type Settings, type Store } from '../../src/bpf/store.ts'
import { cgroupId, cgroupLevel } from '../../src/linux/cgroup.ts'
import { RemedyError } from '../../src/remedy.ts'
import { captureCgroup, cgroupDir, cgroupDirs, isBelow, requireCgroupRoot } from './cgroups.ts'
import { captureHooks, guardHook, probeHook, proxyHooks, userHooks } from './hooks.ts'
import type { WantedLink } from './links.ts'
import type { Report } from './report.ts'
import { type LoadOptions, type ProxyCgroup, settingsFor } from './settings.ts'

export interface Plan {
  readonly settings: Settings
  readonly links: readonly WantedLink[]
  readonly summary: string
  /** Makes the map of cgroups hold those that are in use. */
  registerCgroups(report: Report): void
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

function hint({ defaultIdentity }: Settings, proxies: readonly ProxyCgroup[]): string {
  if (defaultIdentity !== ProxyIdentity.cgroup || proxies.length > 0) return ''
  return ' (no proxy yet: what enrolled pods dial is refused until --proxy-cgroup names one)'
}

function knownCapture(store: Store, root: string): string | undefined {
  const { captureCgroup: id } = requireSettings(store)
  return id === 0n ? undefined : cgroupDirs(root).get(id)
}

/** The named ones, and those that were named earlier and are still there. */
function findProxies({ proxyCgroups }: LoadOptions, store: Store, root: string): ProxyCgroup[] {
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

function registerProxies(store: Store, proxies: readonly ProxyCgroup[], report: Report): void {
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

function linksFor(
  { defaultIdentity, sidecar, guard, probes: probe }: Settings,
  capture: string,
  proxies: readonly ProxyCgroup[],
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
    ...at(probeDirs, [probeHook, ...(probe === ProbeMode.uid ? userHooks : [])]),
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
  const found = usualKubeletCgroup(root)
  if (found !== undefined) return found
  const remedy = 'name it: --kubelet-cgroup PATH; or choose --probes uid, any-host-socket or off'
  throw new RemedyError('--probes kubelet: no cgroup that holds the kubelet alone was found', remedy)
}

/** Of a kubelet that systemd runs, or k3s and its like. */
export function usualKubeletCgroup(root: string): string | undefined {
  const usual = ['system.slice/kubelet.service', 'kubelet.slice', 'kubelet'].map((path) => `${root}/${path}`)
  return usual.find((dir) => statSync(dir, { throwIfNoEntry: false })?.isDirectory())
}
