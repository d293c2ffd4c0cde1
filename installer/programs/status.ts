// SPDX-License-Identifier: Apache-2.0
import { closeSync, existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path/posix'
import { mapInfo, programInfo } from '../../src/bpf/info.ts'
import { openPin, readLinkPin } from '../../src/bpf/link.ts'
import { countersOf, requireSettings } from '../../src/bpf/pods.ts'
import { CgroupRole, mapNames, PodMode, ProbeMode, ProxyIdentity, Store } from '../../src/bpf/store.ts'
import { pinPaths } from '../../src/linux/bpffs.ts'
import { SystemError } from '../../src/native.ts'
import { cgroupDirs, requireCgroupRoot } from './cgroups.ts'

/** Everything that `ambridge load` and the plugin made on this node; ids are the kernel's. */
export interface Status {
  readonly loaded: boolean
  readonly bpffs: string
  readonly settings?: object
  readonly programs: readonly object[]
  readonly links: readonly LinkStatus[]
  readonly maps: readonly object[]
  readonly proxies: readonly object[]
  readonly pods: readonly PodStatus[]
}

export interface LinkStatus {
  readonly name: string
  readonly program: string
  /** False: what it was attached to is gone, so it captures nothing. */
  readonly alive: boolean
  readonly cgroup?: string
}

export interface PodStatus {
  readonly containerId: string
  readonly ifname: string
  readonly namespace: string
  readonly name: string
  readonly uid: string
  readonly netnsCookie: string
  readonly netnsInode: string
  readonly cgroupId: string
  readonly mode: string
  readonly proxyIdentity: string
  readonly addresses: readonly string[]
  readonly link: string
  readonly alive: boolean
  readonly counters: Readonly<Record<string, number>>
}

export function status(bpffs: string): Status {
  const paths = pinPaths(bpffs)
  const empty = { bpffs, programs: [], links: [], maps: [], proxies: [], pods: [] }
  if (!existsSync(join(paths.maps, 'settings'))) return { loaded: false, ...empty }
  using store = new Store(paths.maps)
  const cgroups = cgroupDirs(requireCgroupRoot())
  return {
    loaded: true,
    bpffs,
    settings: settingsStatus(store),
    programs: names(paths.progs).map((name) =>
      withPin(join(paths.progs, name), (fd) => programStatus(name, fd)),
    ),
    links: linkStatuses(paths.links, cgroups),
    maps: mapNames.map((name) => withPin(join(paths.maps, name), (fd) => ({ ...mapInfo(fd), name }))),
    proxies: proxyStatuses(store, cgroups),
    pods: podStatuses(store, paths.netns),
  }
}

function names(dir: string): string[] {
  return existsSync(dir) ? readdirSync(dir).sort() : []
}

function withPin<T>(path: string, read: (fd: number) => T): T {
  const fd = openPin(path)
  try {
    return read(fd)
  } finally {
    closeSync(fd)
  }
}

function programStatus(name: string, fd: number): object {
  const { id, tag, jitedBytes, runCount, runTimeNs } = programInfo(fd)
  return { name, id, tag, jitedBytes, runCount: Number(runCount), runTimeNs: Number(runTimeNs) }
}

/** `name`: <program>-<cgroup id>, as installer/programs/links.ts names the pins. */
function linkStatuses(dir: string, cgroups: ReadonlyMap<bigint, string>): LinkStatus[] {
  return names(dir).map((name) => {
    const info = readLinkPin(join(dir, name))
    const program = name.replace(/-\d+$/, '')
    const cgroup = info.type === 'cgroup' ? cgroups.get(info.cgroupId) : undefined
    return {
      name,
      program,
      alive: info.alive,
      id: info.id,
      programId: info.programId,
      ...(cgroup === undefined ? {} : { cgroup }),
    }
  })
}

function settingsStatus(store: Store): object {
  const { hostNetns, sharedNetns, shared4, shared6, probes, kubeletUid, defaultIdentity, sidecar, guard } =
    requireSettings(store)
  return {
    proxyIdentity: nameOf(ProxyIdentity, defaultIdentity),
    hostNetnsCookie: String(hostNetns),
    sharedProxy:
      sharedNetns === 0n ? null : { netnsCookie: String(sharedNetns), ipv4: shared4, ipv6: shared6 },
    probes: nameOf(ProbeMode, probes),
    kubeletUid,
    sidecar: sidecar !== 0,
    guard: guard !== 0,
  }
}

function proxyStatuses(store: Store, cgroups: ReadonlyMap<bigint, string>): object[] {
  const proxies = store.cgroups.entries().filter(([, { role }]) => role === CgroupRole.proxy)
  return proxies.map(([id]) => {
    const cgroup = cgroups.get(id)
    return { cgroupId: String(id), cgroup: cgroup ?? null, alive: cgroup !== undefined }
  })
}

/** Pods come and go meanwhile: the pins are read last, and a pod that has lost its own is asked for again. */
function podStatuses(store: Store, dir: string): PodStatus[] {
  const attachments = store.attachments.entries()
  const pins = podPins(dir)
  return attachments.flatMap(([key, attachment]) => {
    const pin = pins.find(({ netnsIno }) => netnsIno === attachment.netnsIno)
    if (pin === undefined && store.attachments.get(key) === undefined) return []
    return [podStatus(store, [key, attachment], pin)]
  })
}

interface PodPin {
  readonly name: string
  readonly netnsIno: bigint
  readonly alive: boolean
}

function podPins(dir: string): PodPin[] {
  return names(dir).flatMap((name) => {
    try {
      const info = readLinkPin(join(dir, name))
      return info.type === 'netns' ? [{ name, netnsIno: BigInt(info.netnsIno), alive: info.alive }] : []
    } catch (err) {
      if (err instanceof SystemError && err.code === 'ENOENT') return [] // withdrawn meanwhile
      throw err
    }
  })
}

type Entry = ReturnType<Store['attachments']['entries']>[number]

function podStatus(store: Store, [key, attachment]: Entry, pin?: PodPin): PodStatus {
  const { netns, netnsIno, podNamespace, podName, podUid } = attachment
  const pod = store.pods.get(netns)
  return {
    containerId: key.containerId,
    ifname: key.ifname,
    namespace: podNamespace,
    name: podName,
    uid: podUid,
    netnsCookie: String(netns),
    netnsInode: String(netnsIno),
    cgroupId: String(attachment.cgroupId),
    mode: nameOf(PodMode, pod?.mode ?? 0),
    proxyIdentity: nameOf(ProxyIdentity, pod?.identity ?? 0),
    addresses: attachment.addrs.filter((address) => address !== ''),
    link: pin?.name ?? '',
    alive: pin?.alive ?? false,
    counters: countersOf(store, netns),
  }
}

function nameOf(values: Readonly<Record<string, number>>, wanted: number): string {
  return Object.keys(values).find((name) => values[name] === wanted) ?? 'unknown'
}
