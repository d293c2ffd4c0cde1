// SPDX-License-Identifier: Apache-2.0
/** What the stand-in for ztunnel prints, one JSON object a line. */

/** Addresses are `ip:port` or `[ip]:port`, IPv4-mapped ones as IPv4. */
export interface ProxyConnection {
  readonly event: 'connection'
  readonly standin: string
  /** Path as given to add(), `own`, or `net:[INODE]`. */
  readonly netns: string
  /** The uid of a workload that came over ZDS. */
  readonly workload: string | null
  readonly listener: 15001 | 15006 | 15008
  /** getsockname() of the accepted socket. */
  readonly local: string
  /** As accept() gave it. */
  readonly peer: string
  readonly original: string
  readonly via_sockopt: 'SOL_IP' | 'SOL_IPV6' | 'getsockname'
  /** null: refused without dialling */
  readonly dialled: string | null
  /** Address, without port, that the upstream socket was bound to; null: its own */
  readonly source: string | null
  /** Empty when the upstream connection came about. `bind ...` alone does not prevent it. */
  readonly error: string
}

export interface DnsQuery {
  readonly event: 'dns'
  readonly standin: string
  readonly netns: string
  readonly workload: string | null
  readonly transport: 'udp' | 'tcp'
  readonly client: string
  readonly name: string
  /** 1: A, 28: AAAA */
  readonly type: number
}

export interface ZdsEvent {
  readonly event: 'zds'
  readonly standin: string
  /** `add`: a start, also a repeated one; `stopped`: a proxy has ended. */
  readonly what:
    | 'connected'
    | 'add'
    | 'del'
    | 'keep'
    | 'snapshot'
    | 'stopped'
    | 'nack'
    | 'protocol-error'
    | 'disconnected'
  readonly uid: string | null
  readonly name: string | null
  readonly namespace: string | null
  readonly service_account: string | null
  /** Inode. */
  readonly netns: number | null
  /** Of `add`: why the proxy does not run. */
  readonly error: string
  /** After it: connected, with a snapshot, and every proxy runs. */
  readonly ready: boolean
}

export interface Answer {
  readonly event: 'ready' | 'ack'
  readonly command?: string
  readonly error: string
}

export type StandinLine = ProxyConnection | DnsQuery | ZdsEvent | Answer
