// SPDX-License-Identifier: Apache-2.0
import type { PodView } from '../../src/k8s/view.ts'
import { Netns } from '../../src/linux/netns.ts'
import type { PodProcess } from '../../src/linux/procs.ts'
import { findRunningPod } from '../../src/pods/find.ts'
import { type Registered, uidsOf } from './node.ts'

/**
 * Where a pod runs; undefined when no process of it is found. One that the plugin registered is known by its netns, others
 * by their addresses. The netns is the caller's to dispose.
 */
export function locatePod(pod: PodView, registered: readonly Registered[], processes: readonly PodProcess[]) {
  const known = processes.find(({ netns: { dev, ino } }) => {
    return registered.some(({ netnsDev, netnsIno }) => netnsDev === dev && netnsIno === ino)
  })
  if (known !== undefined) {
    const netns = Netns.open(`/proc/${known.pid}/ns/net`)
    // An inode is used again.
    const isSame = registered.some((each) => each.netns === netns.cookie())
    if (isSame) return { netns, containerId: known.containerId ?? '', cgroup: known.cgroup }
    netns[Symbol.dispose]()
  }
  return findRunningPod(uidsOf(pod), pod.ips, processes)
}
