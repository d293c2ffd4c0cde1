// SPDX-License-Identifier: Apache-2.0
/** What is broken on this node or left behind, whatever the API server says. ADD and DEL go on meanwhile. */
import { readdirSync } from 'node:fs'
import { basename, join } from 'node:path/posix'
import { type Entry, findOrphans, removeOrphans } from '../bpf/orphans.ts'
import { Store } from '../bpf/store.ts'
import { attachmentPinName, pinPaths } from '../linux/bpffs.ts'
import { isThere } from '../linux/path.ts'
import { RemedyError } from '../remedy.ts'
import { type DamagedAttachment, damagedAttachments } from './damage.ts'
import { isLoaded, requireLoaded } from './loaded.ts'
import { orphanPins, readLinkIfThere, releasePin } from './orphan-pins.ts'
import { withdrawFrom } from './withdraw.ts'

export type { DamagedAttachment } from './damage.ts'

export interface Finding {
  readonly kind: 'programs' | 'link' | 'attachment' | 'pin' | 'entries'
  readonly subject: string
  readonly detail: string
}

export interface NodeState {
  /** Of the node's own programs: `ambridge load` puts them right. */
  readonly problems: readonly Finding[]
  readonly attachments: readonly DamagedAttachment[]
  /** Paths of pins, and map entries, that belong to no attachment. */
  readonly pins: readonly string[]
  readonly entries: readonly Entry[]
}

/** Changes nothing. */
export function inspectNode(bpffs: string): NodeState {
  const problems = problemsOf(bpffs)
  if (!isLoaded(bpffs)) return { problems, attachments: [], pins: [], entries: [] }
  const { maps } = pinPaths(bpffs)
  using store = new Store(maps)
  return {
    problems,
    attachments: damagedAttachments(store, bpffs),
    pins: orphanPins(store, bpffs).map(({ path }) => path),
    entries: findOrphans(store, maps).map(({ map, netns }) => ({ map, netns })),
  }
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

function problemsOf(bpffs: string): Finding[] {
  const { links } = pinPaths(bpffs)
  const names = isThere(links) ? readdirSync(links) : []
  const severed = names.filter((name) => readLinkIfThere(join(links, name))?.alive === false)
  if (severed.length > 0) {
    return severed.map((name) => ({ kind: 'link', subject: name, detail: 'its cgroup is gone' }))
  }
  try {
    requireLoaded(bpffs)
    return []
  } catch (err) {
    if (!(err instanceof RemedyError)) throw err
    return [{ kind: 'programs', subject: bpffs, detail: err.message }]
  }
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
