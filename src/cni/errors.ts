// SPDX-License-Identifier: Apache-2.0
import { PolicyError } from '../policy/error.ts'

/** Names of the codes of the CNI specification, and ours from 100. */
export const CniCode = {
  incompatibleVersion: 1,
  unsupportedField: 2,
  unknownContainer: 3,
  invalidEnvironment: 4,
  io: 5,
  decode: 6,
  invalidConfig: 7,
  invalidNetns: 8,
  tryAgain: 11,
  notAvailable: 50,
  limitedConnectivity: 51,
  captureFailed: 100,
  podRefused: 101,
  internal: 999,
} as const

export type CniCode = (typeof CniCode)[keyof typeof CniCode]

export interface CniErrorOptions {
  /** Why, and what to do next. Without it: the cause's message. */
  details?: string
  cause?: unknown
}

/** `message`: what could not be done. `details`: where to look. The runtime shows both to the user. */
export class CniError extends Error {
  override readonly name = 'CniError'
  readonly code: CniCode
  readonly details: string

  constructor(code: CniCode, message: string, options: CniErrorOptions = {}) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined)
    this.code = code
    this.details = options.details ?? ('cause' in options ? describe(options.cause) : '')
  }

  /** What we did not foresee becomes code 999. */
  static from(err: unknown): CniError {
    if (err instanceof CniError) return err
    if (err instanceof PolicyError) {
      return new CniError(CniCode.podRefused, err.message, { details: err.remedy, cause: err })
    }
    const details = 'unexpected error: the log file has more; please report it with the configuration'
    return new CniError(CniCode.internal, describe(err), { details, cause: err })
  }

  toJson(cniVersion: string): string {
    return JSON.stringify({ cniVersion, code: this.code, msg: this.message, details: this.details })
  }
}

/** An error and its causes on one line. Takes whatever was thrown. */
export function describe(err: unknown): string {
  const parts: string[] = []
  let current = err
  while (current instanceof Error && parts.length < 8) {
    parts.push(current instanceof CniError && current.details ? withDetails(current) : current.message)
    // A CniError's details already tell its cause.
    current = current instanceof CniError ? undefined : current.cause
  }
  if (current !== undefined && !(current instanceof Error)) parts.push(text(current))
  return parts.filter((part) => part !== '').join(': ') || 'unknown error'
}

function withDetails(err: CniError): string {
  return `${err.message}: ${err.details}`
}

function text(value: unknown): string {
  try {
    return String(value)
  } catch {
    return 'a value without a text form was thrown'
  }
}
