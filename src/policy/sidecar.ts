// SPDX-License-Identifier: Apache-2.0
import { PolicyError } from './error.ts'
import { isLoopbackRange, parseCidr, parseNames, parsePort } from './parse.ts'
import type { Cidr, Pod, PolicyConfig, SidecarRules } from './pod.ts'

/** What the programs have room for, per list. */
const maxPorts = 64
const maxRanges = 32

const traffic = 'traffic.sidecar.istio.io'
export const interceptionMode = 'sidecar.istio.io/interceptionMode'
const statusPort = 'status.sidecar.istio.io/port'

/** The sidecar's own ports: health, readiness, Prometheus. */
const sidecarPorts = [15020, 15021, 15090]

/** Istio's include and exclude annotations. A value that Istio refuses is refused here. */
export function sidecarRules(pod: Pod, config: PolicyConfig): SidecarRules {
  requireRedirect(pod)
  const includeRanges = value(pod, `${traffic}/includeOutboundIPRanges`, '*')
  const includePorts = value(pod, `${traffic}/includeInboundPorts`, '*')
  const includeOutboundRanges =
    includeRanges === '*' ? '*' : ranges(pod, `${traffic}/includeOutboundIPRanges`, '')
  return {
    includeInboundPorts: includePorts === '*' ? '*' : ports(pod, `${traffic}/includeInboundPorts`, ''),
    excludeInboundPorts: excludedInbound(pod),
    includeOutboundPorts: ports(pod, `${traffic}/includeOutboundPorts`, ''),
    excludeOutboundPorts: ports(pod, `${traffic}/excludeOutboundPorts`, '15020'),
    includeOutboundRanges,
    excludeOutboundRanges: ranges(pod, `${traffic}/excludeOutboundIPRanges`, ''),
    includesLoopback: includeOutboundRanges !== '*' && includeOutboundRanges.some(isLoopbackRange),
    ...config.sidecar,
  }
}

function requireRedirect(pod: Pod): void {
  const mode = value(pod, interceptionMode, 'REDIRECT')
  if (mode !== '' && mode !== 'REDIRECT') {
    const why = 'capture happens at the socket, which is neither REDIRECT nor TPROXY but looks like REDIRECT'
    throw new PolicyError(interceptionMode, mode, `${why}; allowed values are REDIRECT and NONE`)
  }
  const annotation = `${traffic}/excludeInterfaces`
  const names = value(pod, annotation, '')
  if (parseNames(names).length > 0) {
    const why = 'capture happens at the socket, before an interface is chosen'
    const remedy = 'remove the annotation and use excludeOutboundIPRanges or excludeInboundPorts instead'
    throw new PolicyError(annotation, names, `${why}; ${remedy}`)
  }
}

function excludedInbound(pod: Pod): number[] {
  const annotation = `${traffic}/excludeInboundPorts`
  const status = value(pod, statusPort, '')
  const port = parsePort(status)
  if (status !== '' && port === undefined) {
    throw new PolicyError(statusPort, status, 'expected one port, 0 to 65535')
  }
  const all = [...ports(pod, annotation, ''), ...sidecarPorts, ...(port === undefined ? [] : [port])]
  return limited([...new Set(all)], maxPorts, annotation, pod.annotations[annotation] ?? '')
}

function ports(pod: Pod, annotation: string, absent: string): number[] {
  const list = value(pod, annotation, absent)
  const parsed = items(list).map((item) => {
    const port = parsePort(item)
    if (port !== undefined) return port
    const remedy = `${JSON.stringify(item.trim())} is not a port; expected numbers from 0 to 65535, separated by commas`
    throw new PolicyError(annotation, list, remedy)
  })
  return limited([...new Set(parsed)], maxPorts, annotation, list)
}

function ranges(pod: Pod, annotation: string, absent: string): Cidr[] {
  const list = value(pod, annotation, absent)
  const parsed = items(list).map((item) => {
    const cidr = parseCidr(item)
    if (cidr !== undefined) return cidr
    const remedy = `${JSON.stringify(item.trim())} is not a range; expected CIDRs such as 10.0.0.0/8 or fd00::/8, separated by commas`
    throw new PolicyError(annotation, list, remedy)
  })
  return limited(parsed, maxRanges, annotation, list)
}

function limited<T>(list: T[], most: number, annotation: string, text: string): T[] {
  if (list.length <= most) return list
  const remedy = `${list.length} entries, but the programs hold ${most} per list; merge neighbouring ones or use "*"`
  throw new PolicyError(annotation, text, remedy)
}

function value(pod: Pod, annotation: string, absent: string): string {
  return (pod.annotations[annotation] ?? absent).trim()
}

function items(list: string): string[] {
  return list === '' ? [] : list.split(',')
}
