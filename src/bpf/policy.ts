// SPDX-License-Identifier: Apache-2.0
/** How a pod is captured, as the programs read it. */
import { addressBytes, addressText, isIpv4 } from '../address.ts'
import {
  type Pod,
  PodFlag,
  PodMode,
  ProxyIdentity,
  type RangeRules,
  type Rules,
  RulesFlag,
} from './layout.gen.ts'

/** `family` tells what `prefix` counts: 0..32 or 0..128. */
export interface Range {
  readonly address: string
  readonly prefix: number
}

/** A sidecar's include and exclude rules. "*" is everything. */
export interface CaptureRules {
  readonly includeInboundPorts: '*' | readonly number[]
  readonly excludeInboundPorts: readonly number[]
  readonly includeOutboundPorts: readonly number[]
  readonly excludeOutboundPorts: readonly number[]
  readonly includeOutboundRanges: '*' | readonly Range[]
  readonly excludeOutboundRanges: readonly Range[]
  readonly includesLoopback: boolean
  readonly proxyUid: number
  readonly proxyGid: number
}

export interface CapturePolicy {
  readonly mode: 'ambient' | 'ambient-shared' | 'sidecar'
  /** Absent: as the programs were loaded. */
  readonly proxyIdentity?: 'cgroup' | 'mark'
  readonly dnsCapture: boolean
  readonly bypassInbound: boolean
  readonly egressGuard: boolean
  readonly sidecar?: CaptureRules
}

/** The primary address of each family; empty: none. */
export interface PrimaryAddresses {
  readonly ipv4: string
  readonly ipv6: string
}

/** enum pod_mode */
export function modeOf({ mode }: CapturePolicy): number {
  return modes[mode]
}

const modes = { ambient: PodMode.ambient, 'ambient-shared': PodMode.shared, sidecar: PodMode.sidecar }

/** ztunnel's and Envoy's (ztunnel: src/config.rs, src/inpod/config.rs). */
const ports = { outboundPort: 15001, inboundPort: 15006, hbonePort: 15008, dnsPort: 15053 }
const proxyMark = 0x539
const proxyMarkMask = 0xfff

/** `defaultIdentity`: of the settings, enum proxy_identity. */
export function podEntry(policy: CapturePolicy, primary: PrimaryAddresses, defaultIdentity: number): Pod {
  const { sidecar, bypassInbound, egressGuard } = policy
  const chosen = policy.proxyIdentity === undefined ? defaultIdentity : ProxyIdentity[policy.proxyIdentity]
  return {
    own4: primary.ipv4,
    own6: primary.ipv6,
    proxyMark,
    proxyMarkMask,
    proxyUid: sidecar?.proxyUid ?? 0,
    proxyGid: sidecar?.proxyGid ?? 0,
    ...ports,
    mode: modeOf(policy),
    identity: policy.mode === 'sidecar' ? ProxyIdentity.owner : chosen,
    flags:
      (capturesDns(policy) ? PodFlag.dns : 0) |
      (bypassInbound ? PodFlag.bypassInbound : 0) |
      (egressGuard ? PodFlag.guard : 0),
  }
}

/** An excluded port is excluded before DNS is looked at, UDP included. */
function capturesDns({ dnsCapture, sidecar }: CapturePolicy): boolean {
  return dnsCapture && !sidecar?.excludeOutboundPorts.includes(53)
}

export function rulesEntry(rules: CaptureRules): Rules {
  const { includeInboundPorts, includeOutboundRanges } = rules
  return {
    includeInbound: portRule(includeInboundPorts === '*' ? [] : includeInboundPorts),
    excludeInbound: portRule(rules.excludeInboundPorts),
    includeOutbound: portRule(rules.includeOutboundPorts),
    excludeOutbound: portRule(rules.excludeOutboundPorts),
    includeRanges: rangeRules(includeOutboundRanges === '*' ? [] : includeOutboundRanges),
    excludeRanges: rangeRules(rules.excludeOutboundRanges),
    flags:
      (includeInboundPorts === '*' ? RulesFlag.allInbound : 0) |
      (includeOutboundRanges === '*' ? RulesFlag.allOutbound : 0) |
      (rules.includesLoopback ? RulesFlag.loopback : 0),
  }
}

function portRule(port: readonly number[]) {
  return { count: port.length, port }
}

function rangeRules(ranges: readonly Range[]): RangeRules {
  return { count: ranges.length, range: ranges.map(rangeRule) }
}

function rangeRule({ address, prefix }: Range) {
  const mask = maskBytes(isIpv4(address) ? 96 + prefix : prefix)
  const network = addressBytes(address).map((byte, i) => byte & (mask[i] ?? 0))
  return { addr: addressText(network), mask: addressText(mask) }
}

function maskBytes(prefix: number): Uint8Array {
  return Uint8Array.from({ length: 16 }, (_, i) => {
    const bits = Math.min(Math.max(prefix - 8 * i, 0), 8)
    return (0xff << (8 - bits)) & 0xff
  })
}
