// SPDX-License-Identifier: Apache-2.0
/** What the plugin keeps of a pod beyond its own life: entries of the pinned maps, and pinned links. */
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { readLinkPin } from '../../src/bpf/link.ts'
import { Store } from '../../src/bpf/store.ts'
import { pinPaths } from '../../src/linux/bpffs.ts'

/** One line for each, sorted. Those of every pod, or of one: what others do to theirs meanwhile does no harm. */
export function tracesIn(bpffs: string, pod?: { cookie: bigint; containerIds: readonly string[] }): string[] {
  const { maps, netns, guard } = pinPaths(bpffs)
  using store = new Store(maps)
  const isOfPod = (line: string) => {
    return pod === undefined || [`"${pod.cookie}n"`, ...pod.containerIds].some((mark) => line.includes(mark))
  }
  const pins = [netns, guard].flatMap(pinsIn).filter(isOfPod)
  return [...entriesOf(store).filter(isOfPod), ...pins.map(linkAt)].sort()
}

function pinsIn(dir: string): string[] {
  return existsSync(dir) ? readdirSync(dir).map((name) => join(dir, name)) : []
}

/** Without its id, which is another after each ADD. */
function linkAt(path: string): string {
  const { id: _, programId: __, ...rest } = readLinkPin(path)
  return `link ${path} = ${json(rest)}`
}

function entriesOf(store: Store): string[] {
  const { attachments, cgroups, counters, listenerNext, pending, podAddrs, pods, rules } = store
  const written = { attachments, cgroups, counters, listenerNext, pending, podAddrs, pods, rules }
  return Object.entries(written).flatMap(([name, map]) =>
    map.entries().map(([key, value]) => `${name} ${json(key)} = ${json(value)}`),
  )
}

function json(value: unknown): string {
  return JSON.stringify(value, (_, each) => (typeof each === 'bigint' ? `${each}n` : each))
}
