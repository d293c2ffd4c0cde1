// SPDX-License-Identifier: Apache-2.0
import { Listeners } from '../bpf/listeners.ts'
import { PodMode, Store } from '../bpf/store.ts'
import { pinPaths } from '../linux/bpffs.ts'
import { type ListeningSocket, shareAddress, visitListeners } from '../linux/listening.ts'
import { startTimeOf } from '../linux/procs.ts'
import type { SystemError } from '../native.ts'
import { RemedyError } from '../remedy.ts'

export interface AdoptedListener {
  /** Cookie. */
  readonly netns: bigint
  readonly port: number
  readonly family: 4 | 6
}

/**
 * Makes listeners of these proxies known that were open before the programs were loaded: for ports of enrolled pods that have
 * no listener at all. Where every port has one, no process is looked at. Of several proxies the youngest comes first, as
 * when they are learnt at listen(2).
 */
export function adoptListeners(proxyPids: readonly number[], bpffs: string): AdoptedListener[] {
  const { maps } = pinPaths(bpffs)
  using store = new Store(maps)
  using listeners = new Listeners(maps)
  const missing = portsWithoutListener(store, listeners)
  if (missing.size === 0) return []
  const adopted: AdoptedListener[] = []
  for (const pid of youngestFirst(proxyPids)) {
    visit(pid, (socket) => {
      if (missing.has(nameOf(socket))) adopted.push(...adopt(socket, store, listeners))
    })
  }
  return adopted
}

/** Named by `nameOf`. In other modes the proxy listens elsewhere, or is a part of the pod and as old as it. */
function portsWithoutListener(store: Store, listeners: Listeners): Set<string> {
  const pods = store.pods.entries().filter(([, { mode }]) => mode === PodMode.ambient)
  const wanted = pods.flatMap(([netns, { outboundPort, inboundPort, hbonePort }]) =>
    [outboundPort, inboundPort, hbonePort].map((port) => nameOf({ netns, port })),
  )
  const missing = new Set(wanted)
  for (const port of listeners.ports()) missing.delete(nameOf(port))
  return missing
}

function nameOf({ netns, port }: { readonly netns: bigint; readonly port: number }): string {
  return `${netns} ${port}`
}

function youngestFirst(pids: readonly number[]): number[] {
  const alive = [...new Set(pids)].flatMap((pid) => {
    const startTime = startTimeOf(pid)
    return startTime === undefined ? [] : [{ pid, startTime }]
  })
  return alive.sort((a, b) => Number(b.startTime - a.startTime)).map(({ pid }) => pid)
}

function visit(pid: number, fn: (socket: ListeningSocket) => void): void {
  try {
    visitListeners(pid, fn)
  } catch (cause) {
    const { code, message } = cause as SystemError | NodeJS.ErrnoException
    if (code !== 'EPERM' && code !== 'EACCES') throw cause
    const remedy = 'give this process CAP_SYS_PTRACE, or start the proxy again'
    throw new RemedyError(`cannot look for listeners of proxy ${pid}: ${message}`, remedy, { cause })
  }
}

function adopt(
  { fd, netns, port, families }: ListeningSocket,
  store: Store,
  listeners: Listeners,
): AdoptedListener[] {
  // As sockops does at listen(2).
  shareAddress(fd)
  const adopted = families.filter((family) => listeners.addOldest({ netns, port, family }, fd, store))
  return adopted.map((family) => ({ netns, port, family }))
}
