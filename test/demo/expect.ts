// SPDX-License-Identifier: Apache-2.0
/** What is to become of a connection, by who takes part. */
import type { Mode } from './mesh-node.ts'

/** Addresses are `ip:port` or `[ip]:port`. */
export interface Outcome {
  /** The peer that the client sees, or why it has none. */
  readonly connectedTo: string
  /** Who accepted, in order: a listener of the proxy, and the app. */
  readonly path: readonly string[]
  /** What each of the listeners took for the original destination. */
  readonly originals: readonly string[]
  /** Address, without port, of the app's peer; null: the app saw nothing. */
  readonly source: string | null
}

export interface Attempt {
  readonly mode: Mode
  readonly dialled: string
  readonly client: Party
  readonly server: Party
  /** The address of the shared proxy, in the family of the connection. */
  readonly proxyIp: string
}

export interface Party {
  readonly name: string
  readonly enrolled: boolean
  /** In the family of the connection. */
  readonly ip: string
}

export function expected(attempt: Attempt): Outcome {
  const { dialled, client, server } = attempt
  if (isRefused(attempt)) return { connectedTo: 'ECONNREFUSED', path: [], originals: [], source: null }
  const listeners = listenersOf(attempt)
  return {
    connectedTo: dialled,
    path: [...listeners.map((port) => `ztunnel:${port}`), server.name],
    originals: listeners.map(() => dialled),
    source: showsProxy(attempt) ? attempt.proxyIp : client.ip,
  }
}

/** Why the outcome is not what one would think at first; or undefined. */
export function noteOf(attempt: Attempt): string | undefined {
  if (isRefused(attempt)) return 'refused: inbound of mode ambient-shared is only what the proxy brings'
  if (showsProxy(attempt)) return "the proxy's own address: only an enrolled server can be shown its client's"
  return undefined
}

function listenersOf({ mode, client, server }: Attempt): number[] {
  const isSteered = mode === 'ambient' && server.enrolled
  return [...(client.enrolled ? [15001] : []), ...(isSteered ? [15006] : [])]
}

function isRefused({ mode, client, server }: Attempt): boolean {
  return mode === 'ambient-shared' && server.enrolled && !client.enrolled
}

function showsProxy({ mode, client, server }: Attempt): boolean {
  return mode === 'ambient-shared' && client.enrolled && !server.enrolled
}
