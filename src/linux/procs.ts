// SPDX-License-Identifier: Apache-2.0
/** Processes of pods, by /proc. For a reader in the host's pid namespace. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { hostNetnsIdentity, type NetnsIdentity } from './netns.ts'

/** Whose a process is, by its cgroups. */
export interface Membership {
  /** With its dashes. Of a static pod, the hash that the kubelet takes instead. Undefined: no pod's, or unknown. */
  readonly podUid: string | undefined
  readonly containerId: string | undefined
  /** The v2 path as in /proc/PID/cgroup; empty where there is none. */
  readonly cgroup: string
}

export interface PodProcess extends Membership {
  readonly pid: number
  readonly netns: NetnsIdentity
  /** In clock ticks since boot. */
  readonly startTime: bigint
}

/**
 * The oldest process of each pod in each netns but the caller's own: a pod has others than its own when a container makes
 * some. Oldest first.
 */
export function podProcesses(): PodProcess[] {
  const own = hostNetnsIdentity()
  const oldest = new Map<string, PodProcess>()
  for (const name of readdirSync('/proc')) {
    const found = /^\d+$/.test(name) ? readProcess(Number(name), own) : undefined
    if (found === undefined) continue
    const key = `${found.netns.ino} ${found.podUid}`
    const known = oldest.get(key)
    if (known === undefined || isOlder(found, known)) oldest.set(key, found)
  }
  return [...oldest.values()].sort((a, b) => (isOlder(a, b) ? -1 : 1))
}

/** Those that start in the same tick go by their id. */
function isOlder(a: PodProcess, b: PodProcess): boolean {
  return a.startTime === b.startTime ? a.pid < b.pid : a.startTime < b.startTime
}

/** Undefined for one in the own netns, a kernel thread, a zombie, one that is gone, and one that must not be looked at. */
function readProcess(pid: number, own: NetnsIdentity): PodProcess | undefined {
  try {
    // `net:[4026532281]`. All network namespaces are on one device.
    const ino = BigInt(readlinkSync(`/proc/${pid}/ns/net`).slice('net:['.length, -1))
    if (ino === own.ino) return undefined
    const stat = parseStat(readFileSync(`/proc/${pid}/stat`, 'utf8'))
    if (stat.isKernelThread || stat.isZombie) return undefined
    const { startTime } = stat
    const membership = parseCgroups(readFileSync(`/proc/${pid}/cgroup`, 'utf8'))
    return { pid, ...membership, netns: { dev: own.dev, ino }, startTime }
  } catch (err) {
    if (isHidden(err)) return undefined
    throw err
  }
}

/** include/linux/sched.h */
const PF_KTHREAD = 0x00200000

interface Stat {
  readonly isKernelThread: boolean
  readonly isZombie: boolean
  readonly startTime: bigint
}

/** `PID (COMMAND) STATE ...`, proc(5): STATE is field 3, flags 9, starttime 22. The command may have any character. */
export function parseStat(text: string): Stat {
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  const [state = ''] = fields
  return {
    isKernelThread: (Number(fields[9 - 3]) & PF_KTHREAD) !== 0,
    isZombie: 'ZX'.includes(state),
    startTime: BigInt(fields[22 - 3] ?? 0),
  }
}

/** In clock ticks since boot; undefined for a process that is gone. Of two, the greater one is the younger process. */
export function startTimeOf(pid: number): bigint | undefined {
  try {
    return parseStat(readFileSync(`/proc/${pid}/stat`, 'utf8')).startTime
  } catch (err) {
    if (isHidden(err)) return undefined
    throw err
  }
}

/** Without CAP_SYS_PTRACE, one process of root with more capabilities must not hide the others. */
const hiddenCodes: readonly unknown[] = ['ENOENT', 'ESRCH', 'EACCES', 'EPERM']

function isHidden(err: unknown): boolean {
  return hiddenCodes.includes((err as NodeJS.ErrnoException).code)
}

/**
 * Text of /proc/PID/cgroup: lines `ID:CONTROLLERS:PATH`, of the v2 hierarchy `0::PATH`. On a hybrid node the kubelet may have
 * put the pod into the others alone.
 */
export function parseCgroups(text: string): Membership {
  const lines = text.split('\n').filter((line) => line !== '')
  const cgroup = lines.find((line) => line.startsWith('0::'))?.slice(3) ?? ''
  const paths = [...new Set([cgroup, ...lines.map((line) => line.replace(/^\d+:[^:]*:/, ''))])]
  const known = paths.map(ownerOf)
  const owner =
    known.find(({ podUid }) => podUid !== undefined) ??
    known.find(({ containerId }) => containerId !== undefined)
  return { podUid: owner?.podUid, containerId: owner?.containerId, cgroup }
}

type Owner = Omit<Membership, 'cgroup'>

const uid = '[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32}'
const id = '[0-9a-f]{64}'
/** `podUID`, `kubepods-besteffort-podUID.slice`, or what a runtime makes of systemd's `SLICE:PREFIX:ID` without systemd. */
const podPattern = new RegExp(`^(?:.*-)?pod(${uid})(?:\\.slice(?::[^:]*:(${id}))?)?$`)
/** `ID`, `crio-ID`, `cri-containerd-ID.scope` */
const containerPattern = new RegExp(`^(?:.*-)?(${id})(?:\\.scope)?$`)

/** The outermost pod: below its own cgroup a container may make any. */
function ownerOf(path: string): Owner {
  const names = path.split('/')
  for (const [i, name] of names.entries()) {
    const [, podUid, containerId] = podPattern.exec(name) ?? []
    if (podUid === undefined) continue
    return { podUid: podUid.replaceAll('_', '-'), containerId: containerId ?? containerIn(names[i + 1]) }
  }
  // CRI-O, with a cgroup_parent that does not tell the pod, has the container alone.
  return { podUid: undefined, containerId: names.map(containerIn).find((found) => found !== undefined) }
}

function containerIn(name: string | undefined): string | undefined {
  return containerPattern.exec(name ?? '')?.[1]
}
