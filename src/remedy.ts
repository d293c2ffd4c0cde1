// SPDX-License-Identifier: Apache-2.0

/**
 * What has to change: the state of the node (trying again later may do; impaired: pods that run already suffer, too), or what
 * the caller passed.
 */
export type RemedyKind = 'state' | 'impaired' | 'environment' | 'own-netns'

/** `message`: what could not be done, and why. `remedy`: what to do next. */
export class RemedyError extends Error {
  override readonly name = 'RemedyError'
  readonly remedy: string
  readonly kind: RemedyKind

  constructor(message: string, remedy: string, options: ErrorOptions & { kind?: RemedyKind } = {}) {
    super(message, options)
    this.remedy = remedy
    this.kind = options.kind ?? 'state'
  }
}
