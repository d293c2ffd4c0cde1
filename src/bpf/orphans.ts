// SPDX-License-Identifier: Apache-2.0
/** Entries of netns that no attachment is in: what is left of a pod whose registration was taken back in part. */
import { Listeners } from './listeners.ts'
import type { PinnedMap } from './pinned-map.ts'
import { requireSettings } from './pods.ts'
import type { Store } from './store.ts'

export interface Entry {
  readonly map: string
  /** Cookie of the netns that it belongs to. */
  readonly netns: bigint
}

interface Orphan extends Entry {
  /** Removes what is there by now; it may be another's. */
  readonly take: () => Taken | undefined
}

interface Taken extends Entry {
  /** Unless another entry is there by then. */
  readonly putBack: () => void
}

/** `dir`: the bpffs directory of the map pins. */
export function findOrphans(store: Store, dir: string): Orphan[] {
  const { pods, podAddrs, rules, cgroups, pending, counters, listenerNext } = store
  // Before the attachments: who registers a pod writes that first.
  const entries = [
    ...entriesOf('pods', pods, (netns) => netns),
    ...entriesOf('pod_addrs', podAddrs, (_, netns) => netns),
    ...entriesOf('rules', rules, (netns) => netns),
    ...entriesOf('cgroups', cgroups, (_, { netns }) => netns),
    ...entriesOf('pending', pending, (netns) => netns),
    ...entriesOf('counters', counters, ({ netns }) => netns),
    ...entriesOf('listener_next', listenerNext, ({ netns }) => netns),
  ]
  const isOwned = ownersOf(store)
  const isListening = listenersOf(dir)
  return entries.filter(
    ({ map, netns }) => !isOwned(netns) && !(map === 'listener_next' && isListening(netns)),
  )
}

/** Gives what was removed. What belongs to a pod that is registered by then is put back at once. */
export function removeOrphans(store: Store, orphans: readonly Orphan[]): Entry[] {
  const taken: Taken[] = []
  try {
    for (const { take } of orphans) {
      const each = take()
      if (each !== undefined) taken.push(each)
    }
  } catch (err) {
    putBackOwned(store, taken)
    throw err
  }
  return putBackOwned(store, taken)
}

/** Gives the others. */
function putBackOwned(store: Store, taken: readonly Taken[]): Taken[] {
  const isOwned = ownersOf(store)
  for (const { netns, putBack } of taken) if (isOwned(netns)) putBack()
  return taken.filter(({ netns }) => !isOwned(netns))
}

function entriesOf<K, V>(
  name: string,
  map: PinnedMap<K, V>,
  netnsOf: (key: K, value: V) => bigint,
): Orphan[] {
  return map.entries().map(([key, known]) => ({
    map: name,
    netns: netnsOf(key, known),
    take: () => {
      const value = map.take(key)
      if (value === undefined) return undefined
      return { map: name, netns: netnsOf(key, value), putBack: () => void map.insert(key, value) }
    },
  }))
}

/** Whose entries stay. 0: cgroups of proxies and of the kubelet. The shared proxy's netns is no pod's. */
function ownersOf(store: Store): (netns: bigint) => boolean {
  const { sharedNetns } = requireSettings(store)
  const attached = store.attachments.entries().map(([, { netns }]) => netns)
  const owners = new Set([0n, sharedNetns, ...attached])
  return (netns) => owners.has(netns)
}

/** A proxy may listen before its pod is registered. */
function listenersOf(dir: string): (netns: bigint) => boolean {
  using listeners = new Listeners(dir)
  const listening = new Set(listeners.ports().map(({ netns }) => netns))
  return (netns) => listening.has(netns)
}
