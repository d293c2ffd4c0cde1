// SPDX-License-Identifier: Apache-2.0
import { type ServerResponse, STATUS_CODES } from 'node:http'

export interface Reply {
  readonly status: number
  /** Sent as JSON, text as it is. */
  readonly body: object | string
  readonly retryAfterSeconds?: number | undefined
}

export function statusObject(code: number, message = STATUS_CODES[code]): object {
  return { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure', message, code }
}

export function failure(status: number, message?: string): Reply {
  return { status, body: statusObject(status, message) }
}

export function send(response: ServerResponse, { status, body, retryAfterSeconds }: Reply): void {
  if (retryAfterSeconds !== undefined) response.setHeader('retry-after', retryAfterSeconds)
  response.writeHead(status, { 'content-type': 'application/json' })
  response.end(typeof body === 'string' ? body : JSON.stringify(body))
}
