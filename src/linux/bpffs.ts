// SPDX-License-Identifier: Apache-2.0
/** Names and places of pins. */
import { statfsSync } from 'node:fs'
import { join } from 'node:path/posix'

/** linux/magic.h */
const BPF_FS_MAGIC = 0xcafe4a11

/** Whether the directory is there and on a BPF file system, where alone pins can be. */
export function isBpffs(dir: string): boolean {
  try {
    return statfsSync(dir).type === BPF_FS_MAGIC
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw err
  }
}

/** Directories below the one that is ours alone. */
export interface PinPaths {
  readonly maps: string
  readonly progs: string
  /** Links to cgroups. */
  readonly links: string
  /** Links to pod network namespaces, named by `attachmentPinName`. */
  readonly netns: string
  /** Links to interfaces of guarded pods, named by `attachmentPinName` and the index of the interface. */
  readonly guard: string
}

export function pinPaths(base: string): PinPaths {
  const below = (name: string) => join(base, name)
  return {
    maps: below('maps'),
    progs: below('progs'),
    links: below('links'),
    netns: below('netns'),
    guard: below('guard'),
  }
}

/** An attachment, as CNI knows it. */
export interface Attachment {
  readonly containerId: string
  readonly ifname: string
}

const maxNameBytes = 255

/**
 * The file name for an attachment; no other attachment has it. bpffs refuses dots. A container id has no `%` and no `:`, so
 * `%` stands for its dots and the first `:` ends it. An ifname may have any character but `/`: `%25` and `%2e` are escapes.
 */
export function attachmentPinName(containerId: string, ifname: string): string {
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(containerId)) {
    throw new RangeError(
      `container id ${JSON.stringify(containerId)} has other characters than a-z A-Z 0-9 _ . -`,
    )
  }
  if (ifname === '' || /[/\0]/.test(ifname)) {
    throw new RangeError(`interface name ${JSON.stringify(ifname)} is empty or has a slash or NUL`)
  }
  const id = containerId.replaceAll('.', '%')
  const name = `${id}:${ifname.replaceAll('%', '%25').replaceAll('.', '%2e')}`
  if (Buffer.byteLength(name) > maxNameBytes) {
    throw new RangeError(`pin name ${name} is longer than ${maxNameBytes} bytes`)
  }
  return name
}

/** The inverse of `attachmentPinName`; undefined for a name that it never gives. */
export function parseAttachmentPinName(name: string): Attachment | undefined {
  const colon = name.indexOf(':')
  if (colon < 0) return undefined
  const containerId = name.slice(0, colon).replaceAll('%', '.')
  const ifname = name
    .slice(colon + 1)
    .replaceAll('%2e', '.')
    .replaceAll('%25', '%')
  return isNameOf(name, containerId, ifname) ? { containerId, ifname } : undefined
}

function isNameOf(name: string, containerId: string, ifname: string): boolean {
  try {
    return attachmentPinName(containerId, ifname) === name
  } catch {
    return false
  }
}
