// SPDX-License-Identifier: Apache-2.0
/**
 * Plugin and agent: a connection for each request, with one packet each way, which is a JSON document with the version
 * of the sender. `activate` comes with one descriptor: the pod's netns.
 */
import type { Decision } from '../policy/pod.ts'
import { RemedyError } from '../remedy.ts'

/** To be raised when an older plugin or agent would misunderstand. */
export const protocolVersion = 1
export const maxPacketBytes = 64 * 1024

export interface DecideRequest {
  readonly containerId: string
  readonly ifname: string
  readonly pod: {
    readonly namespace: string
    readonly name: string
    /** As the runtime has it: a static pod's is the kubelet's. Empty where the runtime does not tell. */
    readonly uid: string
  }
}

export type ActivateRequest = DecideRequest

export type Request = DecideRequest & { readonly op: 'decide' | 'activate' }

/** One of these. */
export interface Reply {
  readonly decision?: Decision
  readonly activated?: true
  readonly error?: {
    readonly message: string
    readonly remedy: string
    /** The pod asks by it for what cannot be given. */
    readonly annotation?: { readonly name: string; readonly value: string }
  }
}

/** Of src/schema: whether a document is as it should be, and what is wrong with it. */
interface Validator {
  (value: unknown): boolean
  readonly errors?: readonly { readonly instancePath: string; readonly message?: string }[] | null
}

/** Throws RemedyError for what does not fit into a packet. */
export function encode(document: Request | Reply): Buffer {
  const bytes = Buffer.from(JSON.stringify({ version: protocolVersion, ...document }))
  if (bytes.length <= maxPacketBytes) return bytes
  const message = `what plugin and agent tell each other takes ${bytes.length} bytes, at most ${maxPacketBytes} are possible`
  throw new RemedyError(message, 'give the pod a shorter name or shorter annotations')
}

/** Throws RemedyError for another version, and for what is not understood. `what`: the packet, for messages. */
export function decode(
  bytes: Buffer,
  what: string,
  validate: Validator,
  otherVersion: (version: number) => RemedyError,
): unknown {
  const document = parse(bytes.toString())
  const version = (document as { version?: unknown } | null | undefined)?.version
  if (typeof version === 'number' && version !== protocolVersion) throw otherVersion(version)
  if (document !== undefined && validate(document)) return document
  const fault = document === undefined ? 'it is not JSON' : faultFoundBy(validate)
  throw new RemedyError(`${what} is not understood: ${fault}`, 'use plugin and agent of the same version')
}

/** Undefined, which no document is, where the text is no JSON. */
export function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** After the validator said no: `pod.name must be string`. */
export function faultFoundBy({ errors }: Validator): string {
  const { instancePath = '', message = 'is wrong' } = errors?.[0] ?? {}
  const keys = instancePath.split('/').slice(1)
  const path = keys.map((key) => key.replaceAll('~1', '/').replaceAll('~0', '~')).join('.')
  return `${path || 'it'} ${message}`
}
