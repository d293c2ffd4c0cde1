// SPDX-License-Identifier: Apache-2.0
import { type KubeObject, mergePatch } from './objects.ts'

export interface Name {
  readonly name: string
  readonly namespace?: string
}

export interface Change {
  readonly version: number
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED'
  /** As it was at that version. */
  readonly object: KubeObject
}

/** One number for everything that changes, as etcd's. */
export interface Revision {
  current: number
}

/** What the API server knows of one resource, and its history. */
export class Collection<Options> {
  readonly changes: Change[] = []
  readonly #objects = new Map<string, KubeObject>()
  readonly #revision: Revision
  readonly #make: (options?: Options) => KubeObject
  readonly #onChange: () => void

  constructor(revision: Revision, make: (options?: Options) => KubeObject, onChange: () => void) {
    this.#revision = revision
    this.#make = make
    this.#onChange = onChange
  }

  create(options?: Options): KubeObject {
    const object = this.#make(options)
    const key = keyOf(object.metadata)
    if (this.#objects.has(key)) throw new Error(`${key} exists`)
    return this.#record('ADDED', object)
  }

  /** A merge patch (null removes). */
  update(name: Name, patch: unknown): KubeObject {
    return this.#record('MODIFIED', mergePatch(this.read(name), patch) as KubeObject)
  }

  delete(name: Name): void {
    this.#record('DELETED', this.read(name))
  }

  get(name: Name): KubeObject | undefined {
    return this.#objects.get(keyOf(name))
  }

  /** As get(), of something that has to be there. */
  read(name: Name): KubeObject {
    const object = this.get(name)
    if (object === undefined) throw new Error(`there is no ${keyOf(name)}`)
    return object
  }

  all(): KubeObject[] {
    return [...this.#objects.values()]
  }

  #record(type: Change['type'], changed: KubeObject): KubeObject {
    this.#revision.current += 1
    const version = this.#revision.current
    const object = { ...changed, metadata: { ...changed.metadata, resourceVersion: String(version) } }
    const key = keyOf(object.metadata)
    if (type === 'DELETED') this.#objects.delete(key)
    else this.#objects.set(key, object)
    this.changes.push({ version, type, object })
    this.#onChange()
    return object
  }
}

function keyOf({ name, namespace }: Name): string {
  return namespace === undefined ? name : `${namespace}/${name}`
}
