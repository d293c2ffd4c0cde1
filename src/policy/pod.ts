// SPDX-License-Identifier: Apache-2.0

/** What a decision looks at. Outside Kubernetes a pod may have no namespace and no annotations. */
export interface Pod {
  readonly namespace?: string
  readonly name?: string
  readonly uid?: string
  readonly annotations: Readonly<Record<string, string>>
}

export type PodMode = 'ambient' | 'ambient-shared' | 'sidecar'
export type ProxyIdentity = 'cgroup' | 'mark'

export interface Enrollment {
  readonly source: 'agent' | 'static'
  readonly all: boolean
  readonly namespaces: readonly string[]
  readonly annotations: boolean
}

/** The part of the network configuration that a decision looks at. */
export interface PolicyConfig {
  readonly mode: PodMode
  readonly enrollment: Enrollment
  /** Absent: what the programs were loaded with. */
  readonly proxyIdentity?: ProxyIdentity
  /** Absent: on, in mode sidecar off. */
  readonly dnsCapture?: boolean
  readonly egressGuard: boolean
  readonly excludeNamespaces: readonly string[]
  readonly sidecar: { readonly proxyUid: number; readonly proxyGid: number }
}

export interface Cidr {
  readonly address: string
  /** Of the family: 0..32 or 0..128. */
  readonly prefix: number
  readonly family: 4 | 6
}

/** A sidecar's include and exclude rules. "*" is everything. */
export interface SidecarRules {
  readonly includeInboundPorts: '*' | readonly number[]
  readonly excludeInboundPorts: readonly number[]
  readonly includeOutboundPorts: readonly number[]
  readonly excludeOutboundPorts: readonly number[]
  readonly includeOutboundRanges: '*' | readonly Cidr[]
  readonly excludeOutboundRanges: readonly Cidr[]
  /** An included range is a loopback range. */
  readonly includesLoopback: boolean
  readonly proxyUid: number
  readonly proxyGid: number
}

/** How to capture an enrolled pod. */
export interface PodPolicy {
  readonly mode: PodMode
  readonly proxyIdentity?: ProxyIdentity
  readonly dnsCapture: boolean
  readonly bypassInbound: boolean
  /** TCP that raw and packet sockets make by hand is dropped. */
  readonly egressGuard: boolean
  /** Only in mode sidecar. */
  readonly sidecar?: SidecarRules
}

interface AnyDecision {
  readonly reason: string
  /** Annotations that were not understood, and so count as absent. */
  readonly warnings: readonly string[]
}

export type Decision =
  | (AnyDecision & { readonly enroll: false })
  | (AnyDecision & { readonly enroll: true; readonly policy: PodPolicy })
