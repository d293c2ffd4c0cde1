// SPDX-License-Identifier: Apache-2.0
/** Pins of links that belong to no attachment. */
import { readdirSync, renameSync } from 'node:fs'
import { basename, join } from 'node:path/posix'
import { readLinkPin } from '../bpf/link.ts'
import type { AttachmentKey } from '../bpf/pods.ts'
import type { Store } from '../bpf/store.ts'
import { attachmentPinName, parseAttachmentPinName, pinPaths } from '../linux/bpffs.ts'
import { readFlocks } from '../linux/lock.ts'
import { hostNetnsIdentity } from '../linux/netns.ts'
import { isThere, removeFile } from '../linux/path.ts'
import { SystemError } from '../native.ts'
import { linkPin } from './withdraw.ts'

export interface OrphanPin {
  readonly path: string
  /** Undefined: a name that no attachment has. */
  readonly key: AttachmentKey | undefined
}

/** Of links to netns and to interfaces. Those of an attachment that comes meanwhile are not among them. */
export function orphanPins(store: Store, bpffs: string): OrphanPin[] {
  const { netns, guard } = pinPaths(bpffs)
  // Before the attachments: who registers a pod pins its links after that.
  const pins = [
    ...namesIn(netns).map((name) => ({ path: join(netns, name), key: parseAttachmentPinName(name) })),
    ...namesIn(guard).map((name) => {
      return { path: join(guard, name), key: parseAttachmentPinName(name.replace(/@\d+$/, '')) }
    }),
  ]
  const isKnown = namesOf(store.attachments.keys())
  return pins.filter(({ key }) => key === undefined || !isKnown(key))
}

/**
 * Removes it, or gives it to another attachment of its netns: a DEL that ended in its middle left that without. Says what it
 * did; undefined: nothing, for an ADD or DEL was at work.
 */
export function releasePin(store: Store, { path, key }: OrphanPin, bpffs: string): string | undefined {
  // Before the link: a DEL that has let go of the netns by then has removed it.
  const isLocked = readFlocks()
  const link = readLinkIfThere(path)
  if (link === undefined) return undefined
  const ino = link.netnsIno
  if (ino !== undefined && isLocked({ dev: hostNetnsIdentity().dev, ino })) return undefined
  const heirs =
    ino === undefined ? [] : store.attachments.entries().filter(([, { netnsIno }]) => netnsIno === ino)
  // Here an ADD that begins now has the program to load before it pins anything.
  if (key !== undefined && store.attachments.get(key) !== undefined) return undefined
  const [heir] = heirs
  if (heir === undefined || heirs.some(([each]) => isThere(linkPin(bpffs, each)))) {
    removeFile(path)
    return 'removed: it belonged to no attachment'
  }
  const to = linkPin(bpffs, heir[0])
  renameSync(path, to)
  return `renamed to ${basename(to)}, which shares its network namespace`
}

interface PinnedLink {
  /** Of a live link to a netns. */
  readonly netnsIno: bigint | undefined
  readonly alive: boolean
}

/** Undefined when nothing is pinned there, any more. */
export function readLinkIfThere(path: string): PinnedLink | undefined {
  try {
    const link = readLinkPin(path)
    return {
      alive: link.alive,
      netnsIno: link.type === 'netns' && link.alive ? BigInt(link.netnsIno) : undefined,
    }
  } catch (err) {
    if (err instanceof SystemError && err.code === 'ENOENT') return undefined
    throw err
  }
}

function namesIn(dir: string): string[] {
  return isThere(dir) ? readdirSync(dir) : []
}

function namesOf(keys: readonly AttachmentKey[]): (key: AttachmentKey) => boolean {
  const nameOf = ({ containerId, ifname }: AttachmentKey) => attachmentPinName(containerId, ifname)
  const names = new Set(keys.map(nameOf))
  return (key) => names.has(nameOf(key))
}
