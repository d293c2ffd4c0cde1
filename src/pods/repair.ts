// SPDX-License-Identifier: Apache-2.0
/** What was left behind on this node, whatever the API server says. ADD and DEL go on meanwhile. */
import { basename } from 'node:path/posix'
import { type Entry, findOrphans, removeOrphans } from '../bpf/orphans.ts'
import { Store } from '../bpf/store.ts'
import { attachmentPinName, pinPaths } from '../linux/bpffs.ts'
import { type DamagedAttachment, damagedAttachments } from './damage.ts'
import { isLoaded } from './loaded.ts'
import { orphanPins, releasePin } from './orphan-pins.ts'
import { withdrawFrom } from './withdraw.ts'

export interface Finding {
  readonly kind: 'attachment' | 'pin' | 'entries'
  readonly subject: string
  readonly detail: string
}

/** Takes back what belongs to nobody: of netns that are gone, and what an ADD or DEL left that was ended. Gives what it did. */
export function removeLeftovers(bpffs: string): Finding[] {
  if (!isLoaded(bpffs)) return []
  const { maps } = pinPaths(bpffs)
  using store = new Store(maps)
  const pins = orphanPins(store, bpffs).flatMap((pin): Finding[] => {
    const detail = releasePin(store, pin, bpffs)
    return detail === undefined ? [] : [{ kind: 'pin', subject: basename(pin.path), detail }]
  })
  // After that: a link under a wrong name is as good as another.
  const gone = damagedAttachments(store, bpffs).filter(({ lives }) => !lives)
  const withdrawn = gone.flatMap((attachment) => withdrawGone(store, attachment, bpffs))
  return [...pins, ...withdrawn, ...findingsOf(removeOrphans(store, findOrphans(store, maps)))]
}

function withdrawGone(store: Store, { key, netns, pod }: DamagedAttachment, bpffs: string): Finding[] {
  // By now it may be registered for another netns.
  if (store.attachments.get(key)?.netns !== netns) return []
  withdrawFrom(store, key, bpffs)
  const subject = attachmentPinName(key.containerId, key.ifname)
  const detail = `withdrawn: the network namespace of pod ${pod.namespace}/${pod.name} is gone`
  return [{ kind: 'attachment', subject, detail }]
}

/** One for each netns. */
function findingsOf(entries: readonly Entry[]): Finding[] {
  return [...Map.groupBy(entries, ({ netns }) => netns)].map(([netns, group]) => {
    const maps = [...new Set(group.map(({ map }) => map))].join(', ')
    const detail = `${group.length} removed, without an attachment: ${maps}`
    return { kind: 'entries', subject: `netns ${netns}`, detail }
  })
}
