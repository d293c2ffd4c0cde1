// SPDX-License-Identifier: Apache-2.0
/** The plugin's side. Synchronous: the plugin has nothing else to do. */
import { closeSync } from 'node:fs'
import { isAbsent } from '../linux/path.ts'
import { connectSeqpacket, type Packet, receivePacket, sendPacket, setReceiveTimeout } from '../linux/unix.ts'
import { SystemError } from '../native.ts'
import { PolicyError } from '../policy/error.ts'
import type { Decision } from '../policy/pod.ts'
import { RemedyError } from '../remedy.ts'
import { validateReply } from '../schema/agent-reply.gen.cjs'
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

const decideMs = 5_000
/** The agent waits for ztunnel. */
const activateMs = 15_000

const start = 'start the ambridge agent on this node'
const startOrDoWithout = `${start}, or set enrollment.source to "static"`
const seeLog = 'the log of the ambridge agent on this node has more; the pod is tried again'

/** Nobody answers: there is no agent, or it is stuck. */
export class AgentAway extends RemedyError {}

/** Throws PolicyError for a pod that cannot be captured as it asks, AgentAway, and RemedyError for every other failure. */
export function decide(socketPath: string, request: DecideRequest): Decision {
  const { decision } = ask(socketPath, { op: 'decide', ...request }, decideMs)
  return decision ?? otherAnswer()
}

/** Returns when ztunnel serves the pod. Throws as `decide` does. The descriptor stays the caller's. */
export function activate(socketPath: string, request: ActivateRequest, netnsFd: number): void {
  const { activated } = ask(socketPath, { op: 'activate', ...request }, activateMs, netnsFd)
  if (activated === undefined) otherAnswer()
}

function ask(socketPath: string, request: Request, timeoutMs: number, fd?: number): Reply {
  const payload = encode(request)
  const { bytes, fds } = exchange(socketPath, payload, timeoutMs, fd)
  // The agent sends none.
  for (const each of fds) closeSync(each)
  if (bytes.length === 0) throw noAnswer(socketPath)
  const { error, ...reply } = decode(bytes, 'the answer of the agent', validateReply, otherVersion) as Reply
  if (error === undefined) return reply
  const { message, remedy, annotation } = error
  if (annotation !== undefined) throw new PolicyError(annotation.name, annotation.value, remedy)
  throw new RemedyError(message, remedy)
}

/** One packet there and one back, all within the time. */
function exchange(path: string, payload: Buffer, timeoutMs: number, fd: number | undefined): Packet {
  const deadline = performance.now() + timeoutMs
  try {
    const socket = connectSeqpacket(path, timeoutMs)
    try {
      sendPacket(socket, payload, fd)
      setReceiveTimeout(socket, deadline - performance.now())
      const packet = receivePacket(socket, maxPacketBytes)
      if (packet !== undefined) return packet
    } finally {
      closeSync(socket)
    }
  } catch (cause) {
    // EAGAIN: as many connections as can wait do so already.
    if (!(cause instanceof SystemError)) throw cause
    if (cause.code !== 'EAGAIN') throw failed(path, cause)
  }
  throw new AgentAway(`the agent on ${path} has not answered within ${timeoutMs / 1000} s`, seeLog)
}

function failed(path: string, cause: SystemError): RemedyError {
  if (isAbsent(cause)) return new AgentAway(`no agent: ${path} is not there`, startOrDoWithout, { cause })
  if (cause.code === 'ECONNREFUSED') return new AgentAway(`no agent listens on ${path}`, start, { cause })
  if (cause.code === 'EPIPE') return noAnswer(path)
  const remedy = 'the plugin must run as root, and agentSocket name the socket of the ambridge agent'
  return new RemedyError(`cannot ask the agent on ${path}: ${cause.code}`, remedy, { cause })
}

function noAnswer(path: string): AgentAway {
  return new AgentAway(`the agent on ${path} closed the connection without an answer`, seeLog)
}

function otherVersion(version: number): RemedyError {
  const message = `the agent speaks version ${version}, this plugin ${protocolVersion}`
  return new RemedyError(message, 'the upgrade is under way, the pod is tried again')
}

function otherAnswer(): never {
  const message = 'the answer of the agent is not understood: it is one to another question'
  throw new RemedyError(message, 'use plugin and agent of the same version')
}
