// SPDX-License-Identifier: Apache-2.0
/** Packets as the agent reads and writes them. */
import { closeSync } from 'node:fs'
import { Netns } from '../linux/netns.ts'
import type { Packet } from '../linux/unix.ts'
import { SystemError } from '../native.ts'
import { PolicyError } from '../policy/error.ts'
import { RemedyError } from '../remedy.ts'
import { validateRequest } from '../schema/agent-request.gen.cjs'
import {
  type ActivateRequest,
  type DecideRequest,
  decode,
  encode,
  maxPacketBytes,
  protocolVersion,
  type Reply,
  type Request,
} from './protocol.ts'

const sameVersion = 'use plugin and agent of the same version'
/** An annotation may have 256 KiB. */
const maxText = 2_000

/** `netns`: of `activate` alone, the caller's to dispose. */
export type Asked =
  | { readonly op: 'decide'; readonly request: DecideRequest }
  | { readonly op: 'activate'; readonly request: ActivateRequest; readonly netns: Netns }

/** Throws RemedyError, with the descriptors of the packet closed. */
export function readRequest(packet: Packet): Asked {
  const { op, ...request } = checked(packet)
  const [fd] = packet.fds
  if (fd === undefined) return { op: 'decide', request }
  const { namespace, name } = request.pod
  try {
    return { op: 'activate', request, netns: Netns.fromFd(fd, `the descriptor for pod ${namespace}/${name}`) }
  } catch (cause) {
    if (!(cause instanceof SystemError) || cause.code !== 'EINVAL') throw cause
    throw new RemedyError(cause.message, sameVersion, { cause })
  }
}

function checked({ bytes, fds, truncated }: Packet): Request {
  try {
    if (truncated)
      throw misunderstood(`it is larger than ${maxPacketBytes} bytes, or has too many descriptors`)
    const { op, containerId, ifname, pod } = decode(
      bytes,
      'the request',
      validateRequest,
      otherVersion,
    ) as Request
    if (fds.length !== (op === 'activate' ? 1 : 0)) {
      throw misunderstood(`${op} came with ${fds.length} descriptors`)
    }
    const { namespace, name, uid } = pod
    return { op, containerId, ifname, pod: { namespace, name, uid } }
  } catch (err) {
    for (const fd of fds) closeSync(fd)
    throw err
  }
}

function misunderstood(fault: string): RemedyError {
  return new RemedyError(`the request is not understood: ${fault}`, sameVersion)
}

/** The plugin sees by the answer's version what is the matter. */
function otherVersion(version: number): RemedyError {
  return new RemedyError(`the plugin speaks version ${version}, this agent ${protocolVersion}`, sameVersion)
}

/** Texts are cut so that they fit. */
export function encodeReply(reply: Reply): Buffer {
  const { decision } = reply
  if (decision === undefined) return encode(reply)
  return encode({ decision: { ...decision, warnings: decision.warnings.map(cut) } })
}

export function encodeError(err: unknown): Buffer {
  return encode({ error: errorOf(err) })
}

function errorOf(err: unknown): NonNullable<Reply['error']> {
  if (err instanceof PolicyError) {
    const annotation = { name: cut(err.annotation), value: cut(err.value) }
    return { message: cut(err.message), remedy: cut(err.remedy), annotation }
  }
  if (err instanceof RemedyError) return { message: cut(err.message), remedy: cut(err.remedy) }
  const message = err instanceof Error ? cut(err.message) : 'what was thrown is no Error'
  return { message: `the agent failed: ${message}`, remedy: 'the log of the ambridge agent has more' }
}

function cut(text: string): string {
  return text.length <= maxText ? text : `${text.slice(0, maxText - 3)}...`
}
