// SPDX-License-Identifier: Apache-2.0
import { check, type Pointer } from '../native.ts'
import { ffi } from './libbpf.ts'

/** In the kernel. Owns every descriptor it gives out: pins and links stay when it is disposed. */
export class LoadedObject implements Disposable {
  #object: Pointer | undefined
  readonly #name: string

  constructor(object: Pointer, name: string) {
    this.#object = object
    this.#name = name
  }

  /** Names of the programs that were loaded, section by section. */
  programs(): string[] {
    return programsOf(this.#owned())
      .filter((program) => ffi.bpf_program__autoload(program))
      .map((program) => ffi.bpf_program__name(program))
  }

  programFd(program: string): number {
    const found = findProgram(this.#owned(), program, this.#name)
    return check(`program ${program} of BPF object ${this.#name} is not loaded`, ffi.bpf_program__fd(found))
  }

  mapFd(map: string): number {
    const found = ffi.bpf_object__find_map_by_name(this.#owned(), map)
    if (found === null) throw new Error(`BPF object ${this.#name} has no map ${map}`)
    return check(`map ${map} of BPF object ${this.#name} is not loaded`, ffi.bpf_map__fd(found))
  }

  #owned(): Pointer {
    if (this.#object === undefined) throw new Error(`BPF object ${this.#name} is closed`)
    return this.#object
  }

  [Symbol.dispose](): void {
    if (this.#object !== undefined) ffi.bpf_object__close(this.#object)
    this.#object = undefined
  }
}

export function findProgram(object: Pointer, program: string, name: string): Pointer {
  const found = ffi.bpf_object__find_program_by_name(object, program)
  if (found === null) throw new Error(`BPF object ${name} has no program ${program}`)
  return found
}

export const programsOf = (object: Pointer) =>
  walk((previous) => ffi.bpf_object__next_program(object, previous))
export const mapsOf = (object: Pointer) => walk((previous) => ffi.bpf_object__next_map(object, previous))

function walk(next: (previous: Pointer | null) => Pointer | null): Pointer[] {
  const found: Pointer[] = []
  for (let at = next(null); at !== null; at = next(at)) found.push(at)
  return found
}
