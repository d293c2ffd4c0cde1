// SPDX-License-Identifier: Apache-2.0
/** Links attach a program to a cgroup or a netns. Every descriptor returned here is the caller's to close. */
import { closeSync } from 'node:fs'
import { check } from '../native.ts'
import { readInfo } from './info.ts'
import { ffi } from './libbpf.ts'

/** enum bpf_attach_type in linux/bpf.h, without its prefix. */
export const attachTypes = {
  CGROUP_INET_SOCK_CREATE: 2,
  CGROUP_SOCK_OPS: 3,
  CGROUP_INET4_BIND: 8,
  CGROUP_INET6_BIND: 9,
  CGROUP_INET4_CONNECT: 10,
  CGROUP_INET6_CONNECT: 11,
  CGROUP_INET4_POST_BIND: 12,
  CGROUP_INET6_POST_BIND: 13,
  CGROUP_UDP4_SENDMSG: 14,
  CGROUP_UDP6_SENDMSG: 15,
  CGROUP_UDP4_RECVMSG: 19,
  CGROUP_UDP6_RECVMSG: 20,
  CGROUP_GETSOCKOPT: 21,
  CGROUP_SETSOCKOPT: 22,
  CGROUP_INET4_GETPEERNAME: 29,
  CGROUP_INET6_GETPEERNAME: 30,
  CGROUP_INET4_GETSOCKNAME: 31,
  CGROUP_INET6_GETSOCKNAME: 32,
  CGROUP_INET_SOCK_RELEASE: 34,
  SK_LOOKUP: 36,
  TCX_EGRESS: 47,
} as const

export type AttachType = (typeof attachTypes)[keyof typeof attachTypes]

/** Several links on one cgroup stack, and see every cgroup below it. The link goes with its last descriptor or pin. */
export function attachToCgroup(programFd: number, cgroupFd: number, type: AttachType): number {
  const action = `attach a program (${typeName(type)}) to a cgroup`
  return check(action, ffi.bpf_link_create(programFd, cgroupFd, type, null))
}

/** The link does not keep the netns alive: when the netns goes, the link is severed, and its pin stays behind. */
export function attachToNetns(programFd: number, netnsFd: number, type: AttachType): number {
  const action = `attach a program (${typeName(type)}) to a netns`
  return check(action, ffi.bpf_link_create(programFd, netnsFd, type, null))
}

/** On the way out of an interface of the calling thread's netns. Several links stack. Needs Linux 6.6. */
export function attachToInterface(programFd: number, ifindex: number): number {
  const action = `attach a program (TCX_EGRESS) to interface ${ifindex}`
  return check(action, ffi.bpf_link_create(programFd, ifindex, attachTypes.TCX_EGRESS, null))
}

function typeName(type: AttachType): string {
  return Object.entries(attachTypes).find(([, value]) => value === type)?.[0] ?? String(type)
}

/** Keep a program, map or link alive under a path in bpffs, until the file is unlinked (and some milliseconds longer). */
export function pin(fd: number, path: string): void {
  check(`pin ${path}`, ffi.bpf_obj_pin(fd, path))
}

/** A descriptor of whatever is pinned there: program, map or link. */
export function openPin(path: string): number {
  return check(`open pin ${path}`, ffi.bpf_obj_get(path))
}

/** Put another program of the same type in its place, atomically. A severed link answers ENOLINK. */
export function updateLink(linkFd: number, programFd: number): void {
  check('update a link', ffi.bpf_link_update(linkFd, programFd, null))
}

/** The program stops running at once, although descriptors and pins of the link remain. */
export function detachLink(linkFd: number): void {
  check('detach a link', ffi.bpf_link_detach(linkFd))
}

/** enum bpf_link_type in linux/bpf.h. */
const BPF_LINK_TYPE_CGROUP = 3
const BPF_LINK_TYPE_NETNS = 5
const BPF_LINK_TYPE_TCX = 11

interface LinkBase {
  readonly id: number
  readonly programId: number
}

/** Where a link is attached. An id or inode of 0 means nowhere any more. */
export type LinkInfo =
  | (LinkBase & { readonly type: 'cgroup'; readonly attachType: number; readonly cgroupId: bigint })
  | (LinkBase & { readonly type: 'netns'; readonly attachType: number; readonly netnsIno: number })
  | (LinkBase & { readonly type: 'tcx'; readonly attachType: number; readonly ifindex: number })
  | (LinkBase & { readonly type: 'other'; readonly linkType: number })

/** Throws SystemError when `fd` is no descriptor of a BPF object. */
export function linkInfo(fd: number): LinkInfo {
  // struct bpf_link_info: u32 type, id, prog_id, a hole; then a union.
  const info = readInfo(fd, Buffer.alloc(32))
  const linkType = info.readUInt32LE(0)
  const base = { id: info.readUInt32LE(4), programId: info.readUInt32LE(8) }
  if (linkType === BPF_LINK_TYPE_CGROUP) {
    const cgroupId = info.readBigUInt64LE(16)
    return { ...base, type: 'cgroup', attachType: info.readUInt32LE(24), cgroupId }
  }
  if (linkType === BPF_LINK_TYPE_NETNS) {
    return { ...base, type: 'netns', netnsIno: info.readUInt32LE(16), attachType: info.readUInt32LE(20) }
  }
  if (linkType === BPF_LINK_TYPE_TCX) {
    return { ...base, type: 'tcx', ifindex: info.readUInt32LE(16), attachType: info.readUInt32LE(20) }
  }
  return { ...base, type: 'other', linkType }
}

/** Whether the cgroup or netns of the link still is there. A severed link runs for nobody, and can only be unpinned. */
export function isAlive(info: LinkInfo): boolean {
  if (info.type === 'cgroup') return info.cgroupId !== 0n
  if (info.type === 'netns') return info.netnsIno !== 0
  if (info.type === 'tcx') return info.ifindex !== 0
  return true
}

/** What a pinned link is, and whether what it is attached to is still there. */
export function readLinkPin(path: string): LinkInfo & { readonly alive: boolean } {
  const fd = openPin(path)
  try {
    const info = linkInfo(fd)
    return { ...info, alive: isAlive(info) }
  } finally {
    closeSync(fd)
  }
}
