// SPDX-License-Identifier: Apache-2.0
/** What is broken on a node or left behind, as the tests of repairs see it. */
import { readdirSync } from 'node:fs'
import { join } from 'node:path/posix'
import { type Entry, findOrphans } from '../../src/bpf/orphans.ts'
import { Store } from '../../src/bpf/store.ts'
import { pinPaths } from '../../src/linux/bpffs.ts'
import { isThere } from '../../src/linux/path.ts'
import { type DamagedAttachment, damagedAttachments } from '../../src/pods/damage.ts'
import { isLoaded, requireLoaded } from '../../src/pods/loaded.ts'
import { orphanPins, readLinkIfThere } from '../../src/pods/orphan-pins.ts'
import { RemedyError } from '../../src/remedy.ts'

export interface Problem {
  readonly kind: 'programs' | 'link'
  readonly subject: string
  readonly detail: string
}

export interface NodeState {
  /** Of the node's own programs: `ambridge load` puts them right. */
  readonly problems: readonly Problem[]
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

function problemsOf(bpffs: string): Problem[] {
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
