// SPDX-License-Identifier: Apache-2.0
/** Takes a pod out of the mesh on this node: maps and link. Works when netns, programs and bpffs are gone. */
import { readdirSync, renameSync } from 'node:fs'
import { join } from 'node:path/posix'
import { type AttachmentKey, unregister } from '../bpf/pods.ts'
import { Store } from '../bpf/store.ts'
import { attachmentPinName, parseAttachmentPinName, pinPaths } from '../linux/bpffs.ts'
import type { Netns } from '../linux/netns.ts'
import { isThere, removeFile } from '../linux/path.ts'
import { openNetns } from './open-netns.ts'

/** Idempotent; needs neither the netns nor the programs. */
export function withdraw(key: AttachmentKey, bpffs: string, netns?: Netns | string): void {
  if (!isLoaded(bpffs)) return
  using opened = openIfThere(netns)
  opened?.lock()
  using store = new Store(pinPaths(bpffs).maps)
  withdrawFrom(store, key, bpffs)
}

function isLoaded(bpffs: string): boolean {
  return isThere(join(pinPaths(bpffs).maps, 'attachments'))
}

function openIfThere(netns: Netns | string | undefined): Netns | undefined {
  if (netns === undefined) return undefined
  try {
    return openNetns(netns)
  } catch {
    return undefined // gone, or never was one: there is nothing to wait for
  }
}

/** Takes back what is there, with the netns locked. */
export function withdrawFrom(store: Store, key: AttachmentKey, bpffs: string): void {
  const heir = unregister(store, key)
  const pinPath = linkPin(bpffs, key)
  // The link belongs to the netns: it goes with its last attachment.
  if (heir !== undefined && isThere(pinPath)) renameSync(pinPath, linkPin(bpffs, heir))
  else removeFile(pinPath)
  for (const pin of guardPins(bpffs, key)) removeFile(pin)
}

/** Of the interfaces that an attachment has guarded. */
export function guardPins(bpffs: string, { containerId, ifname }: AttachmentKey): string[] {
  const { guard } = pinPaths(bpffs)
  const name = attachmentPinName(containerId, ifname)
  if (!isThere(guard)) return []
  return readdirSync(guard)
    .filter((pin) => pin.replace(/@\d+$/, '') === name)
    .map((pin) => join(guard, pin))
}

export function guardPin(bpffs: string, { containerId, ifname }: AttachmentKey, ifindex: number): string {
  return join(pinPaths(bpffs).guard, `${attachmentPinName(containerId, ifname)}@${ifindex}`)
}

/** Withdraws every attachment that is not valid. Goes on after a failure; returns what failed. */
export function withdrawOthers(valid: readonly AttachmentKey[], bpffs: string): unknown[] {
  const { maps, netns: pins } = pinPaths(bpffs)
  if (!isLoaded(bpffs)) return []
  const name = ({ containerId, ifname }: AttachmentKey) => attachmentPinName(containerId, ifname)
  const kept = new Set(valid.map(name))
  using store = new Store(maps)
  const known = [
    ...store.attachments.keys(),
    ...readdirSync(pins).flatMap((pin) => parseAttachmentPinName(pin) ?? []),
  ]
  const stale = new Map(known.map((key) => [name(key), key]))
  return [...stale].flatMap(([pin, key]) => {
    if (kept.has(pin)) return []
    try {
      withdrawFrom(store, key, bpffs)
      return []
    } catch (err) {
      return [err]
    }
  })
}

export function linkPin(bpffs: string, { containerId, ifname }: AttachmentKey): string {
  return join(pinPaths(bpffs).netns, attachmentPinName(containerId, ifname))
}
