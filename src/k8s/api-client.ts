// SPDX-License-Identifier: Apache-2.0
import { once } from 'node:events'
import { type ClientRequest, type IncomingMessage, request as requestPlain } from 'node:http'
import { type RequestOptions, request as requestTls } from 'node:https'
import type { Credentials } from './credentials.ts'
import { Deadline } from './deadline.ts'
import { ClusterError } from './error.ts'
import { type Call, explainAnswer, explainFailure, explainStatus, explainTimeout } from './explain.ts'
import type { ApiObject } from './view.ts'

export interface Request extends Call {
  readonly path: string
  readonly query?: Readonly<Record<string, string>>
  /** A merge patch. */
  readonly body?: unknown
}

export interface WatchEvent {
  readonly type: string
  readonly object: ApiObject
}

/** When nothing comes, a dead peer is noticed by probes: after this time ten of them, a second apart (libuv). */
const keepAliveMs = 30_000

/**
 * Requests to the API server, each on a connection of its own, so that none is sent on a dead one. Every failure is a
 * ClusterError, except after `closed`: then it is its reason.
 */
export class ApiClient {
  readonly #credentials: Credentials
  readonly #closed: AbortSignal

  constructor(credentials: Credentials, closed: AbortSignal) {
    this.#credentials = credentials
    this.#closed = closed
  }

  /** The answer's JSON, whole, within `limitMs`. */
  async json<T>(request: Request, limitMs: number): Promise<T> {
    return await this.#guarded(request, limitMs, async (deadline) => {
      const response = await this.#open(request, deadline.signal)
      return this.#parse(request, await textOf(response)) as T
    })
  }

  /**
   * Hands the events of a watch over as they come, until the API server ends it. Fails when nothing comes for `openMs` at
   * first, and for `silentMs` later, and with an ERROR event.
   */
  async events(
    request: Request,
    { openMs, silentMs }: { readonly openMs: number; readonly silentMs: number },
    { onOpen, onEvent }: { onOpen(): void; onEvent(event: WatchEvent): void },
  ): Promise<void> {
    await this.#guarded(request, openMs, async (deadline) => {
      const response = await this.#open(request, deadline.signal)
      deadline.limit(silentMs)
      onOpen()
      response.setEncoding('utf8')
      let rest = ''
      for await (const chunk of response) {
        deadline.limit(silentMs)
        const lines = `${rest}${chunk}`.split('\n')
        // The last one is incomplete, or empty.
        rest = lines.pop() ?? ''
        for (const line of lines) onEvent(this.#event(request, line))
      }
    })
  }

  #event(request: Request, line: string): WatchEvent {
    const event = this.#parse(request, line) as WatchEvent
    if (typeof event?.object !== 'object') throw this.unreadable(request, new Error('no watch event'))
    if (event.type !== 'ERROR') return event
    const { code = 500 } = event.object as { code?: number }
    throw explainStatus(request, this.#credentials, { status: code, text: JSON.stringify(event.object) })
  }

  #parse(request: Request, text: string): unknown {
    try {
      return JSON.parse(text)
    } catch (err) {
      throw this.unreadable(request, err)
    }
  }

  unreadable(call: Call, cause: unknown): ClusterError {
    return explainAnswer(call, this.#credentials, cause)
  }

  async #guarded<T>(request: Request, limitMs: number, run: (deadline: Deadline) => Promise<T>): Promise<T> {
    using deadline = new Deadline(this.#closed, limitMs)
    try {
      return await run(deadline)
    } catch (err) {
      this.#closed.throwIfAborted()
      if (deadline.expired) throw explainTimeout(request, this.#credentials, deadline.limitMs)
      if (err instanceof ClusterError) throw err
      this.#credentials.forget()
      throw explainFailure(request, this.#credentials, err)
    }
  }

  /** A token may have been replaced since it was read, so 401 is asked twice. */
  async #open(request: Request, signal: AbortSignal): Promise<IncomingMessage> {
    const first = await this.#send(request, signal)
    if (first.statusCode !== 401) return await this.#accepted(request, first)
    first.destroy()
    this.#credentials.forget()
    return await this.#accepted(request, await this.#send(request, signal))
  }

  async #send({ verb, path, query = {}, body }: Request, signal: AbortSignal): Promise<IncomingMessage> {
    const credentials = await this.#credentials.requestOptions()
    const url = new URL(`${this.#credentials.server}${path}`)
    for (const [key, value] of Object.entries(query)) url.searchParams.set(key, value)
    const headers = {
      ...credentials.headers,
      accept: 'application/json',
      'user-agent': 'ambridge',
      ...(body === undefined ? {} : { 'content-type': 'application/merge-patch+json' }),
    }
    const options: RequestOptions = {
      ...credentials,
      headers,
      method: verb === 'patch' ? 'PATCH' : 'GET',
      signal,
    }
    const request = url.protocol === 'https:' ? requestTls(url, options) : requestPlain(url, options)
    request.on('socket', (socket) => socket.setKeepAlive(true, keepAliveMs))
    request.end(body === undefined ? undefined : JSON.stringify(body))
    return await responseTo(request)
  }

  async #accepted(request: Request, response: IncomingMessage): Promise<IncomingMessage> {
    const { statusCode: status = 0, headers } = response
    if (status >= 200 && status < 300) return response
    const text = await textOf(response)
    const seconds = Number(headers['retry-after'] ?? 0)
    const retryAfterMs = Number.isFinite(seconds) ? seconds * 1000 : 0
    throw explainStatus(request, this.#credentials, { status, text, retryAfterMs })
  }
}

async function responseTo(request: ClientRequest): Promise<IncomingMessage> {
  // An error after the answer has begun is told to its reader, too.
  request.on('error', () => undefined)
  const [response] = await once(request, 'response')
  return response
}

async function textOf(response: IncomingMessage): Promise<string> {
  response.setEncoding('utf8')
  let text = ''
  for await (const chunk of response) text += chunk
  return text
}
