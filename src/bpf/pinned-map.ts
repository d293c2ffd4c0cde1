// SPDX-License-Identifier: Apache-2.0
import { closeSync } from 'node:fs'
import { check, EEXIST, ENOENT } from '../native.ts'
import { mapInfo } from './info.ts'
import { ffi } from './libbpf.ts'
import { openPin } from './link.ts'

/** How a map's bytes are read and written. Sizes in bytes, as the map was declared. */
export interface MapCodec<K, V> {
  readonly keySize: number
  readonly valueSize: number
  readonly encodeKey: (key: K) => Buffer
  readonly decodeKey: (bytes: Buffer) => K
  readonly encode: (value: V) => Buffer
  readonly decode: (bytes: Buffer) => V
  /** One value for each possible CPU, as `perCpu` makes it. */
  readonly perCpu?: boolean
}

/** The codec of a per-CPU map from that of one value; a value of the map is an array, one for each possible CPU. */
export function perCpu<K, V>(codec: MapCodec<K, V>): MapCodec<K, V[]> {
  const slot = perCpuSlotSize(codec.valueSize)
  return {
    ...codec,
    perCpu: true,
    encode: (values) => {
      const bytes = Buffer.alloc(slot * values.length)
      for (const [cpu, value] of values.entries()) codec.encode(value).copy(bytes, slot * cpu)
      return bytes
    },
    decode: (bytes) =>
      Array.from({ length: bytes.length / slot }, (_, cpu) =>
        codec.decode(bytes.subarray(slot * cpu, slot * cpu + codec.valueSize)),
      ),
  }
}

/** The kernel's copies of a per-CPU value start at multiples of 8 bytes. */
const perCpuSlotSize = (valueSize: number) => Math.ceil(valueSize / 8) * 8

/** enum bpf_map_type in linux/bpf.h: PERCPU_HASH, PERCPU_ARRAY, LRU_PERCPU_HASH. */
const perCpuTypes: readonly number[] = [5, 6, 10]

/** Flags of bpf_map_update_elem (linux/bpf.h). */
const BPF_ANY = 0
const BPF_NOEXIST = 1

/** A map opened through its bpffs path. Owns one descriptor: declare it with `using`. */
export class PinnedMap<K, V> implements Disposable {
  readonly path: string
  readonly #fd: number
  readonly #codec: MapCodec<K, V>
  readonly #valueBytes: number

  private constructor(path: string, fd: number, codec: MapCodec<K, V>) {
    this.path = path
    this.#fd = fd
    this.#codec = codec
    this.#valueBytes = codec.perCpu ? perCpuSlotSize(codec.valueSize) * possibleCpus() : codec.valueSize
  }

  /** Throws SystemError (ENOENT: nothing pinned there), or Error when the map has another layout than the codec. */
  static open<K, V>(path: string, codec: MapCodec<K, V>): PinnedMap<K, V> {
    const fd = openPin(path)
    try {
      requireLayout(path, fd, codec)
      return new PinnedMap(path, fd, codec)
    } catch (err) {
      closeSync(fd)
      throw err
    }
  }

  get(key: K): V | undefined {
    return this.#lookup(this.#keyBytes(key))
  }

  /** Add or replace. */
  set(key: K, value: V): void {
    check(`update map ${this.path}`, this.#update(key, value, BPF_ANY))
  }

  /** Add; false when the key is there already. */
  insert(key: K, value: V): boolean {
    const ret = this.#update(key, value, BPF_NOEXIST)
    return ret !== -EEXIST && check(`insert into map ${this.path}`, ret) === 0
  }

  /** False when there was no such key. */
  delete(key: K): boolean {
    const ret = ffi.bpf_map_delete_elem(this.#fd, this.#keyBytes(key))
    return ret !== -ENOENT && check(`delete from map ${this.path}`, ret) === 0
  }

  /** Delete, and give what was there at that very moment. For hash maps. */
  take(key: K): V | undefined {
    const value = Buffer.alloc(this.#valueBytes)
    const ret = ffi.bpf_map_lookup_and_delete_elem(this.#fd, this.#keyBytes(key), value)
    if (ret === -ENOENT) return undefined
    check(`take from map ${this.path}`, ret)
    return this.#codec.decode(value)
  }

  /** Every key once, read before it returns: deleting while going through them is safe. */
  keys(): K[] {
    return this.#rawKeys().map(this.#codec.decodeKey)
  }

  entries(): [K, V][] {
    const entries: [K, V][] = []
    for (const key of this.#rawKeys()) {
      const value = this.#lookup(key)
      // Deleted in the meantime.
      if (value !== undefined) entries.push([this.#codec.decodeKey(key), value])
    }
    return entries
  }

  #lookup(key: Buffer): V | undefined {
    const value = Buffer.alloc(this.#valueBytes)
    const ret = ffi.bpf_map_lookup_elem(this.#fd, key, value)
    if (ret === -ENOENT) return undefined
    check(`look up in map ${this.path}`, ret)
    return this.#codec.decode(value)
  }

  #update(key: K, value: V, flags: number): number {
    const bytes = requireSize(this.#codec.encode(value), this.#valueBytes, `value of map ${this.path}`)
    return ffi.bpf_map_update_elem(this.#fd, this.#keyBytes(key), bytes, flags)
  }

  #keyBytes(key: K): Buffer {
    return requireSize(this.#codec.encodeKey(key), this.#codec.keySize, `key of map ${this.path}`)
  }

  /** When the key that we stand on is deleted by another, the kernel starts anew: so a key may be seen twice. */
  #rawKeys(): Buffer[] {
    const found = new Map<string, Buffer>()
    let previous: Buffer | null = null
    for (;;) {
      const next: Buffer = Buffer.alloc(this.#codec.keySize)
      const ret = ffi.bpf_map_get_next_key(this.#fd, previous, next)
      if (ret === -ENOENT) return [...found.values()]
      check(`list keys of map ${this.path}`, ret)
      found.set(next.toString('latin1'), next)
      previous = next
    }
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd)
  }
}

type MapLayout = Pick<MapCodec<unknown, unknown>, 'keySize' | 'valueSize' | 'perCpu'>

/** The kernel reads and writes by the map's sizes: with another layout it would pass the end of our Buffers. */
function requireLayout(path: string, fd: number, codec: MapLayout): void {
  const info = mapInfo(fd)
  const differences: string[] = []
  const compare = (what: string, pinned: number | string, wanted: number | string) => {
    if (pinned !== wanted) differences.push(`${what} ${pinned} instead of ${wanted}`)
  }
  compare('keySize', info.keySize, codec.keySize)
  compare('valueSize', info.valueSize, codec.valueSize)
  compare('values', valuesOf(perCpuTypes.includes(info.type)), valuesOf(codec.perCpu === true))
  if (differences.length === 0) return
  const what = `pinned map ${path} comes from another version: ${differences.join(', ')}`
  throw new Error(`${what}; run "ambridge unload" first`)
}

const valuesOf = (isPerCpu: boolean) => (isPerCpu ? 'per CPU' : 'shared by all CPUs')

function requireSize(bytes: Buffer, size: number, what: string): Buffer {
  if (bytes.length !== size) throw new RangeError(`${what} has ${size} bytes, not ${bytes.length}`)
  return bytes
}

let cpus: number | undefined

function possibleCpus(): number {
  cpus ??= check('count possible CPUs', ffi.libbpf_num_possible_cpus())
  return cpus
}
