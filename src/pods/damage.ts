// SPDX-License-Identifier: Apache-2.0
import type { AttachmentKey } from '../bpf/pods.ts'
import type { Store } from '../bpf/store.ts'
import { readFlocks } from '../linux/lock.ts'
import { podProcesses } from '../linux/procs.ts'
import { findNetns } from './find.ts'
import { readLinkIfThere } from './orphan-pins.ts'
import { linkPin } from './withdraw.ts'

/** One without inbound capture. */
export interface DamagedAttachment {
  readonly key: AttachmentKey
  readonly pod: { readonly uid: string; readonly namespace: string; readonly name: string }
  /** Cookie. */
  readonly netns: bigint
  readonly link: 'missing' | 'severed'
  /** Whether the netns is there, as far as can be seen. */
  readonly lives: boolean
}

/**
 * The order matters: who registers a pod locks its netns before, and attaches the link last. So a link that is missing after
 * no lock was seen will not come.
 */
export function damagedAttachments(store: Store, bpffs: string): DamagedAttachment[] {
  const attachments = store.attachments.entries()
  const isLocked = readFlocks()
  const linked = attachments.map(([key, attachment]) => {
    return { key, ...attachment, link: readLinkIfThere(linkPin(bpffs, key)) }
  })
  // One link serves all attachments of a netns.
  const captured = new Set(
    linked.filter(({ link, netnsIno }) => link?.netnsIno === netnsIno).map(({ netns }) => netns),
  )
  const damaged = linked.filter(({ netns }) => !captured.has(netns))
  const processes = damaged.length === 0 ? [] : podProcesses()
  return damaged.map(({ key, netns, netnsDev, netnsIno, link, podUid, podNamespace, podName }) => {
    const identity = { dev: netnsDev, ino: netnsIno }
    using found = findNetns({ cookie: netns, identity }, processes)
    return {
      key,
      pod: { uid: podUid, namespace: podNamespace, name: podName },
      netns,
      link: link === undefined ? 'missing' : 'severed',
      lives: found !== undefined || isLocked(identity),
    }
  })
}
