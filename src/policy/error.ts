// SPDX-License-Identifier: Apache-2.0

/** A pod asks for what cannot be given, so it must not start. */
export class PolicyError extends Error {
  override readonly name = 'PolicyError'
  readonly annotation: string
  readonly value: string
  /** Why, and what to do next. */
  readonly remedy: string

  constructor(annotation: string, value: string, remedy: string) {
    const shown = value.length <= 120 ? value : `${value.slice(0, 117)}...`
    super(`cannot capture a pod with annotation ${annotation}: ${JSON.stringify(shown)}`)
    this.annotation = annotation
    this.value = value
    this.remedy = remedy
  }
}
