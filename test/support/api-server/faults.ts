// SPDX-License-Identifier: Apache-2.0

export interface Asked {
  readonly verb: 'get' | 'list' | 'watch' | 'patch'
  readonly resource: 'pods' | 'pods/status' | 'namespaces'
  readonly path: string
  readonly query: Readonly<Record<string, string>>
}

export interface Fault {
  readonly status: number
  /** What it is for; everything unless told otherwise. */
  readonly verb?: Asked['verb']
  readonly resource?: Asked['resource']
  readonly path?: string
  /** So many requests; all unless told otherwise. */
  readonly times?: number
  readonly retryAfterSeconds?: number
  /** Instead of a v1.Status: sent as it is. */
  readonly text?: string
}

interface Pending {
  readonly fault: Fault
  left: number
}

/** Answers that are not given as they should be. */
export class Faults {
  #pending: Pending[] = []

  add(fault: Fault): void {
    this.#pending.push({ fault, left: fault.times ?? Number.POSITIVE_INFINITY })
  }

  clear(): void {
    this.#pending = []
  }

  take(asked: Asked): Fault | undefined {
    const found = this.#pending.find(
      ({ fault, left }) =>
        left > 0 &&
        (fault.verb === undefined || fault.verb === asked.verb) &&
        (fault.resource === undefined || fault.resource === asked.resource) &&
        (fault.path === undefined || fault.path === asked.path),
    )
    if (found !== undefined) found.left -= 1
    return found?.fault
  }
}
