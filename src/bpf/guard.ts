// SPDX-License-Identifier: Apache-2.0
import { closeSync } from 'node:fs'
import { loadInstance } from './instance.ts'
import { attachToInterface, openPin, pin, updateLink } from './link.ts'

const program = 'ambridge_guard'

export interface GuardTarget {
  readonly cookie: bigint
  /** Indexes of the interfaces, in the pod's netns. */
  readonly ifindexes: readonly number[]
  /** Runs a function in the pod's netns, where alone the indexes mean something. */
  readonly inNetns: <T>(fn: () => T) => T
  /** Where the link of an interface is pinned. */
  readonly pinPath: (ifindex: number) => string
  /** bpffs directory of the map pins. */
  readonly mapsDir: string
}

/** Guard the interfaces of a pod. Needs tcx: Linux 6.6. */
export function attachGuard({ cookie, ifindexes, inNetns, pinPath, mapsDir }: GuardTarget): void {
  using instance = loadInstance('guard', [cookie], mapsDir)
  const programFd = instance.programFd(program)
  for (const ifindex of ifindexes) {
    const link = inNetns(() => attachToInterface(programFd, ifindex))
    try {
      pin(link, pinPath(ifindex))
    } finally {
      closeSync(link)
    }
  }
}

/** Put the current program in the place of an older one. */
export function upgradeGuard(cookie: bigint, pinPath: string, mapsDir: string): void {
  using instance = loadInstance('guard', [cookie], mapsDir)
  const link = openPin(pinPath)
  try {
    updateLink(link, instance.programFd(program))
  } finally {
    closeSync(link)
  }
}
