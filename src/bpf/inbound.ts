// SPDX-License-Identifier: Apache-2.0
import { closeSync } from 'node:fs'
import { loadInstance } from './instance.ts'
import { PodMode } from './layout.gen.ts'
import { attachToNetns, attachTypes, openPin, pin, readLinkPin, updateLink } from './link.ts'

const program = 'ambridge_inbound'

export interface InboundTarget {
  readonly netnsFd: number
  readonly cookie: bigint
  /** enum pod_mode: the program has but that one in it. */
  readonly mode: number
  /** Where the link is pinned. */
  readonly pinPath: string
  /** bpffs directory of the map pins. */
  readonly mapsDir: string
}

/** Give a netns its own instance of the sk_lookup program. */
export function attachInbound({ netnsFd, cookie, mode, pinPath, mapsDir }: InboundTarget): void {
  using instance = loadInstance('inbound', [cookie, BigInt(mode)], mapsDir)
  const link = attachToNetns(instance.programFd(program), netnsFd, attachTypes.SK_LOOKUP)
  try {
    pin(link, pinPath)
  } finally {
    closeSync(link)
  }
}

/** Put the current program in the place of an older one, without a moment between the two. */
export function upgradeInbound({ cookie, mode, pinPath, mapsDir }: Omit<InboundTarget, 'netnsFd'>): void {
  using instance = loadInstance('inbound', [cookie, BigInt(mode)], mapsDir)
  const link = openPin(pinPath)
  try {
    updateLink(link, instance.programFd(program))
  } finally {
    closeSync(link)
  }
}

/** Is there a live link to the netns with this inode? */
export function isInboundAlive(pinPath: string, ino: bigint): boolean {
  const link = readLinkPin(pinPath)
  return link.type === 'netns' && link.alive && BigInt(link.netnsIno) === ino
}

/** Loads an instance of each mode for nobody: throws LoadError, with libbpf's log, where the kernel cannot. */
export function probeInbound(mapsDir: string): void {
  for (const mode of Object.values(PodMode)) {
    loadInstance('inbound', [0n, BigInt(mode)], mapsDir, true)[Symbol.dispose]()
  }
}
