// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs'
import { canonicalAddress } from '../address.ts'
import { isSameNetns, Netns, type NetnsIdentity } from '../linux/netns.ts'
import { type PodProcess, podProcesses } from '../linux/procs.ts'
import { SystemError } from '../native.ts'

export interface RunningPod {
  /** The caller's to dispose. */
  readonly netns: Netns
  /** That of the oldest process: the sandbox, or the first container where a runtime keeps no process for the sandbox. */
  readonly containerId: string
  /** Of that process, as in /proc/PID/cgroup. */
  readonly cgroup: string
}

/**
 * Where a pod runs, by the processes in its cgroup; `uids`: as the API server knows it and as the kubelet does. A process
 * counts when its netns has one of the pod's addresses, for a container can make more. Undefined: none does.
 */
export function findRunningPod(
  uids: readonly string[],
  ips: readonly string[],
  processes: readonly PodProcess[] = podProcesses(),
): RunningPod | undefined {
  const wanted = new Set(ips.map(canonicalAddress))
  // Oldest first.
  for (const candidate of processes) {
    const { containerId, cgroup, podUid } = candidate
    if (podUid === undefined || !uids.includes(podUid) || containerId === undefined) continue
    const netns = openNetnsOf(candidate)
    if (netns === undefined) continue
    if (hasAddress(netns, wanted)) return { netns, containerId, cgroup }
    netns[Symbol.dispose]()
  }
  return undefined
}

/** Undefined when the process is gone, also when another one has its id. */
function openNetnsOf({ pid, netns: identity }: PodProcess): Netns | undefined {
  const netns = openIfThere(`/proc/${pid}/ns/net`)
  if (netns === undefined || isSameNetns(netns.identity, identity)) return netns
  netns[Symbol.dispose]()
  return undefined
}

export interface RegisteredNetns {
  readonly cookie: bigint
  readonly identity: NetnsIdentity
}

/** By a process in it, or by a mount of it that this process sees. Undefined: there is none. The caller disposes it. */
export function findNetns(
  { cookie, identity }: RegisteredNetns,
  processes: readonly PodProcess[] = podProcesses(),
): Netns | undefined {
  const found = processes.find(({ netns }) => isSameNetns(netns, identity))
  const paths = [...(found === undefined ? [] : [`/proc/${found.pid}/ns/net`]), ...mountsOf(identity)]
  for (const path of paths) {
    const netns = openIfThere(path)
    // The inode of one that is gone is used again.
    if (netns?.cookie() === cookie) return netns
    netns?.[Symbol.dispose]()
  }
  return undefined
}

/** `123 45 0:4 net:[4026532281] /run/netns/name rw - nsfs nsfs rw` */
function mountsOf({ ino }: NetnsIdentity): string[] {
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' '))
  return mounts.flatMap(([, , , root, dir]) => (root === `net:[${ino}]` && dir !== undefined ? [dir] : []))
}

function openIfThere(path: string): Netns | undefined {
  try {
    return Netns.open(path)
  } catch (err) {
    if (err instanceof SystemError && ['ENOENT', 'ESRCH', 'EINVAL'].includes(err.code)) return undefined
    throw err
  }
}

function hasAddress(netns: Netns, wanted: ReadonlySet<string>): boolean {
  try {
    return netns.addresses().some(({ address }) => wanted.has(canonicalAddress(address)))
  } catch (err) {
    netns[Symbol.dispose]()
    throw err
  }
}
