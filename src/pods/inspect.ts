// SPDX-License-Identifier: Apache-2.0
import { readdirSync } from 'node:fs'
import { join } from 'node:path/posix'
import { canonicalAddress } from '../address.ts'
import { isInboundAlive } from '../bpf/inbound.ts'
import { readLinkPin } from '../bpf/link.ts'
import { type AttachmentKey, attachmentsOf } from '../bpf/pods.ts'
import { Store } from '../bpf/store.ts'
import { pinPaths } from '../linux/bpffs.ts'
import type { Netns } from '../linux/netns.ts'
import { isThere } from '../linux/path.ts'
import { requireLoaded } from './loaded.ts'
import { openNetns } from './open-netns.ts'
import { linkPin } from './withdraw.ts'

/** What is wrong with the registration of an attachment; empty: nothing. Throws RemedyError when nothing is loaded. */
export function inspect(
  key: AttachmentKey,
  netns: Netns | string,
  addresses: readonly string[],
  bpffs: string,
): string[] {
  requireLoaded(bpffs)
  using opened = openNetns(netns)
  using store = new Store(pinPaths(bpffs).maps)
  const attachment = store.attachments.get(key)
  if (attachment === undefined) return ['the attachment is not registered']
  const { cookie, identity } = { cookie: opened.cookie(), identity: opened.identity }
  if (attachment.netns !== cookie) return ['the attachment is registered for another network namespace']
  return [
    ...(store.pods.get(cookie) === undefined ? ['the pod is not in the map of enrolled pods'] : []),
    ...addresses.map(canonicalAddress).flatMap((addr) => {
      return store.podAddrs.get({ netns: cookie, addr }) === undefined
        ? [`address ${addr} is not registered`]
        : []
    }),
    ...(hasLiveInbound(store, key, cookie, identity.ino, bpffs) ? [] : ['inbound capture is not attached']),
    ...severedLinks(bpffs).map((name) => `link ${name} is severed: run "ambridge load"`),
  ]
}

/** By its own pin, or that of another attachment of the same netns. */
function hasLiveInbound(
  store: Store,
  key: AttachmentKey,
  cookie: bigint,
  ino: bigint,
  bpffs: string,
): boolean {
  const isLive = (pin: string) => isThere(pin) && isInboundAlive(pin, ino)
  // To look for the others is to read all of the node.
  if (isLive(linkPin(bpffs, key))) return true
  return attachmentsOf(store, cookie).some(([other]) => isLive(linkPin(bpffs, other)))
}

/** Names of the node-wide links whose cgroup is gone. */
function severedLinks(bpffs: string): string[] {
  const { links } = pinPaths(bpffs)
  return readdirSync(links).filter((name) => !readLinkPin(join(links, name)).alive)
}
