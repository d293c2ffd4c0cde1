// SPDX-License-Identifier: Apache-2.0
import { commandOf, type Env } from './env.ts'
import { CniCode, CniError } from './errors.ts'
import { parseRequest } from './request.ts'
import type { AddRequest, CheckRequest, CniRequest, DelRequest, GcRequest, StatusRequest } from './types.ts'
import { isSupported, latestVersion, versionJson } from './version.ts'

/** One per command. They succeed in silence: what ADD answers is known before. */
export interface Handlers {
  add(request: AddRequest): Promise<void>
  del(request: DelRequest): Promise<void>
  check(request: CheckRequest): Promise<void>
  gc(request: GcRequest): Promise<void>
  status(request: StatusRequest): Promise<void>
}

export interface CniIo {
  readonly env: Env
  /** All of stdin; not called for VERSION. */
  stdin(): string
  /** Called at most once, with one JSON document and a line feed. */
  stdout(text: string): void
  /** Called once per error, after it was printed. */
  logError(error: CniError): void
}

interface Outcome {
  /** The JSON document to print, if any. */
  readonly text?: string
  readonly error?: CniError
}

/** Runs the command that the environment names. The only writer of stdout. Returns the exit code; never throws. */
export async function runCni(handlers: Handlers, io: CniIo): Promise<number> {
  const { text, error } = await perform(handlers, io)
  const faults = error === undefined ? [] : [error]
  try {
    if (text !== undefined) io.stdout(`${text}\n`)
  } catch (cause) {
    faults.push(new CniError(CniCode.io, 'cannot write to stdout', { cause }))
  }
  try {
    for (const fault of faults) io.logError(fault)
  } catch {
    // The runtime has the answer; there is no other place to tell it.
  }
  return faults.length === 0 ? 0 : 1
}

async function perform(handlers: Handlers, io: CniIo): Promise<Outcome> {
  let stdin = ''
  try {
    if (commandOf(io.env) === 'VERSION') return { text: versionJson() }
    stdin = io.stdin()
    const request = parseRequest(io.env, stdin)
    // First: a pod must not be enrolled by an ADD that then cannot answer.
    const answer = request.command === 'ADD' ? { text: encode(resultFor(request)) } : {}
    await dispatch(handlers, request)
    return answer
  } catch (err) {
    const error = CniError.from(err)
    return { text: error.toJson(answerVersion(stdin)), error }
  }
}

/** What ADD answers: prevResult as it came, in the version that was asked for. */
function resultFor({ config: { cniVersion, prevResult } }: AddRequest): object {
  if (prevResult === undefined || prevResult === null) return { cniVersion }
  // A key keeps its place when it is set again.
  return Object.hasOwn(prevResult, 'cniVersion')
    ? { ...prevResult, cniVersion }
    : { cniVersion, ...prevResult }
}

async function dispatch(handlers: Handlers, request: CniRequest): Promise<void> {
  switch (request.command) {
    case 'ADD':
      return handlers.add(request)
    case 'DEL':
      return handlers.del(request)
    case 'CHECK':
      return handlers.check(request)
    case 'GC':
      return handlers.gc(request)
    case 'STATUS':
      return handlers.status(request)
    case 'VERSION':
      return
  }
}

function encode(result: object): string {
  try {
    return JSON.stringify(result)
  } catch (cause) {
    throw new CniError(CniCode.internal, 'cannot write the result as JSON', { cause })
  }
}

/** Read again, because an error may come before the configuration is understood. */
function answerVersion(stdin: string): string {
  try {
    const version: unknown = JSON.parse(stdin).cniVersion
    return isSupported(version) ? version : latestVersion
  } catch {
    return latestVersion
  }
}
