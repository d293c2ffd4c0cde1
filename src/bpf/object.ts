// SPDX-License-Identifier: Apache-2.0
/** One BPF object (.o): opened, changed, loaded. What may be done before and what after the load are two types. */
import { closeSync } from 'node:fs'
import { check, checkPointer, ENOENT, type Pointer } from '../native.ts'
import { type MapShape, mapInfo } from './info.ts'
import { ffi } from './libbpf.ts'
import { logged } from './load-log.ts'
import { findProgram, LoadedObject, mapsOf, programsOf } from './loaded-object.ts'

export interface ObjectOptions {
  /** For messages; the kernel shows its first characters in the names of .rodata and .bss. */
  readonly name: string
  /** bpffs directory of the maps that are pinned by name. */
  readonly pinRoot: string
  /** Keep libbpf's log for the error of a failed load. Costs a callback, so only where somebody reads it. */
  readonly captureLog?: boolean
}

/** Throws LoadError for bytes that are no BPF object. */
export function openObject(bytes: Buffer, options: ObjectOptions): OpenObject {
  const opts = { sz: 32, object_name: options.name, relaxed_maps: false, pin_root_path: options.pinRoot }
  const object = logged(options.captureLog, () =>
    checkPointer(`open BPF object ${options.name}`, ffi.bpf_object__open_mem(bytes, bytes.length, opts)),
  )
  return new OpenObject(object, options)
}

/** Not loaded yet. Owns the object until `load` hands it on: declare it with `using`. */
export class OpenObject implements Disposable {
  #object: Pointer | undefined
  readonly #options: ObjectOptions

  constructor(object: Pointer, options: ObjectOptions) {
    this.#object = object
    this.#options = options
  }

  /** Fill the object's constants. `bytes` is the whole of .rodata, as layout.h lays it out. */
  setRodata(bytes: Buffer): void {
    const { name } = this.#options
    const map = ffi.bpf_object__find_map_by_name(this.#owned(), '.rodata')
    if (map === null) throw new Error(`BPF object ${name} has no .rodata to set`)
    const size = ffi.bpf_map__value_size(map)
    if (bytes.length !== size) {
      throw new RangeError(`.rodata of BPF object ${name} has ${size} bytes, not ${bytes.length}`)
    }
    check(`set .rodata of BPF object ${name}`, ffi.bpf_map__set_initial_value(map, bytes, size))
  }

  /** Whether `load` loads the program. */
  setAutoload(program: string, on: boolean): void {
    const found = findProgram(this.#owned(), program, this.#options.name)
    check(`set autoload of program ${program}`, ffi.bpf_program__set_autoload(found, on))
  }

  /** Names of all programs, section by section. */
  programs(): string[] {
    return programsOf(this.#owned()).map((program) => ffi.bpf_program__name(program))
  }

  /** Maps that are pinned already are shared. Throws when one has another shape, and LoadError when the kernel refuses. */
  load(): LoadedObject {
    const object = this.#owned()
    try {
      logged(this.#options.captureLog, () =>
        check(`load BPF object ${this.#options.name}`, ffi.bpf_object__load(object)),
      )
    } catch (err) {
      // Afterwards, because to ask for the shape of every map takes longer than to load.
      for (const map of mapsOf(object)) requireSamePin(map)
      throw err
    }
    this.#object = undefined
    return new LoadedObject(object, this.#options.name)
  }

  #owned(): Pointer {
    if (this.#object === undefined) throw new Error(`BPF object ${this.#options.name} is loaded or closed`)
    return this.#object
  }

  [Symbol.dispose](): void {
    if (this.#object !== undefined) ffi.bpf_object__close(this.#object)
    this.#object = undefined
  }
}

/** libbpf would refuse such a pin with EINVAL and name nothing. */
function requireSamePin(map: Pointer): void {
  const path = ffi.bpf_map__pin_path(map)
  const pinned = path === null ? undefined : pinnedShape(path)
  if (pinned === undefined) return
  const wanted = wantedShape(map)
  const differences = (Object.keys(wanted) as (keyof MapShape)[])
    .filter((field) => pinned[field] !== wanted[field])
    .map((field) => `${field} ${pinned[field]} instead of ${wanted[field]}`)
  if (differences.length === 0) return
  const what = `pinned map ${path} comes from another version: ${differences.join(', ')}`
  throw new Error(`${what}; run "ambridge unload" first`)
}

function wantedShape(map: Pointer): MapShape {
  return {
    type: ffi.bpf_map__type(map),
    keySize: ffi.bpf_map__key_size(map),
    valueSize: ffi.bpf_map__value_size(map),
    maxEntries: ffi.bpf_map__max_entries(map),
    flags: ffi.bpf_map__map_flags(map),
  }
}

function pinnedShape(path: string): MapShape | undefined {
  const fd = ffi.bpf_obj_get(path)
  if (fd === -ENOENT) return undefined
  check(`open pin ${path}`, fd)
  try {
    return mapInfo(fd)
  } finally {
    closeSync(fd)
  }
}
