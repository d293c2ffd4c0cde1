// SPDX-License-Identifier: Apache-2.0
/** What the kernel tells about a program or a map (struct bpf_prog_info and bpf_map_info in linux/bpf.h). */
import { check, koffi } from '../native.ts'
import { ffi } from './libbpf.ts'

export interface ProgramInfo {
  readonly id: number
  readonly type: number
  /** At most 15 characters: the kernel cuts longer ones. */
  readonly name: string
  /** Hash of the instructions, 16 hex digits. */
  readonly tag: string
  readonly jitedBytes: number
  readonly mapIds: readonly number[]
  /** Both stay 0 unless kernel.bpf_stats_enabled is set. */
  readonly runTimeNs: bigint
  readonly runCount: bigint
}

/** What must be equal for a map to be shared. `type`: enum bpf_map_type; sizes in bytes. */
export interface MapShape {
  readonly type: number
  readonly keySize: number
  readonly valueSize: number
  readonly maxEntries: number
  readonly flags: number
}

export interface MapInfo extends MapShape {
  readonly id: number
  /** At most 15 characters: the kernel cuts longer ones. */
  readonly name: string
}

/** MAX_USED_MAPS of the kernel: one call gets all ids. */
const maxMapIds = 64
const programInfoBytes = 224

/** Throws SystemError when `fd` is no descriptor of a BPF program. */
export function programInfo(fd: number): ProgramInfo {
  // The ids follow the struct, so that one Buffer keeps both alive during the call.
  const info = Buffer.alloc(programInfoBytes + 4 * maxMapIds)
  info.writeUInt32LE(maxMapIds, 52)
  info.writeBigUInt64LE(koffi().address(info) + BigInt(programInfoBytes), 56)
  readInfo(fd, info.subarray(0, programInfoBytes))
  const mapCount = Math.min(info.readUInt32LE(52), maxMapIds)
  return {
    type: info.readUInt32LE(0),
    id: info.readUInt32LE(4),
    tag: info.toString('hex', 8, 16),
    jitedBytes: info.readUInt32LE(16),
    mapIds: Array.from({ length: mapCount }, (_, i) => info.readUInt32LE(programInfoBytes + 4 * i)),
    name: objectName(info, 64),
    runTimeNs: info.readBigUInt64LE(192),
    runCount: info.readBigUInt64LE(200),
  }
}

/** Throws SystemError when `fd` is no descriptor of a BPF object. */
export function mapInfo(fd: number): MapInfo {
  const info = readInfo(fd, Buffer.alloc(88))
  return {
    type: info.readUInt32LE(0),
    id: info.readUInt32LE(4),
    keySize: info.readUInt32LE(8),
    valueSize: info.readUInt32LE(12),
    maxEntries: info.readUInt32LE(16),
    flags: info.readUInt32LE(20),
    name: objectName(info, 24),
  }
}

/** Let the kernel fill `info`, a zeroed struct; a field that this kernel does not know stays 0. */
export function readInfo(fd: number, info: Buffer): Buffer {
  const length = Uint32Array.of(info.length)
  check(`read info of BPF descriptor ${fd}`, ffi.bpf_obj_get_info_by_fd(fd, info, length))
  return info
}

/** char name[BPF_OBJ_NAME_LEN] */
function objectName(info: Buffer, offset: number): string {
  return info.toString('latin1', offset, offset + 16).replace(/\0.*$/s, '')
}
