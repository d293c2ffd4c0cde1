// SPDX-License-Identifier: Apache-2.0
import { PolicyError } from './error.ts'
import { parseBool, parseNames } from './parse.ts'
import type { Decision, Pod, PodPolicy, PolicyConfig } from './pod.ts'
import { interceptionMode, sidecarRules } from './sidecar.ts'

const dataplaneMode = 'istio.io/dataplane-mode'
export const redirection = 'ambient.istio.io/redirection'
const bypassInboundCapture = 'ambient.istio.io/bypass-inbound-capture'
const dnsCapture = 'ambient.istio.io/dns-capture'
export const sidecarStatus = 'sidecar.istio.io/status'
const sidecarInject = 'sidecar.istio.io/inject'
const virtualInterfaces = ['istio.io/reroute-virtual-interfaces']
const sidecarVirtualInterfaces = [...virtualInterfaces, 'traffic.sidecar.istio.io/kubevirtInterfaces']

/**
 * Static enrollment: the network configuration and the pod's annotations decide.
 * Throws PolicyError for a pod that is to be enrolled and cannot be captured.
 */
export function decide(pod: Pod, config: PolicyConfig): Decision {
  const reason = chosenBy(pod, config)
  if (reason !== undefined) return decideChosen(pod, config, reason)
  return { enroll: false, reason: excludedBy(pod, config) ?? 'nothing asks for it', warnings: [] }
}

/** For a pod that somebody chose already (the agent, by its selectors), for the given reason. */
export function decideChosen(pod: Pod, config: PolicyConfig, reason: string): Decision {
  const excluded = excludedBy(pod, config)
  if (excluded !== undefined) return { enroll: false, reason: excluded, warnings: [] }
  const warnings: string[] = []
  return { enroll: true, reason, policy: policyOf(pod, config, warnings), warnings }
}

/** Why the pod is enrolled, or undefined. */
function chosenBy({ namespace, annotations }: Pod, { mode, enrollment }: PolicyConfig): string | undefined {
  if (enrollment.annotations) {
    if (mode === 'sidecar' && sidecarStatus in annotations) return `annotation ${sidecarStatus}`
    if (mode !== 'sidecar' && annotations[dataplaneMode] === 'ambient') {
      return `annotation ${dataplaneMode}: ambient`
    }
    if (mode !== 'sidecar' && annotations[redirection] === 'enabled') {
      return `annotation ${redirection}: enabled`
    }
  }
  if (enrollment.all) return 'enrollment.all'
  if (namespace !== undefined && enrollment.namespaces.includes(namespace)) {
    return `namespace ${namespace} is in enrollment.namespaces`
  }
  return undefined
}

/** Why the pod is never enrolled, whoever chose it; or undefined. */
function excludedBy(pod: Pod, config: PolicyConfig): string | undefined {
  const { annotations } = pod
  const excluded = excludedByNamespace(pod, config)
  if (excluded !== undefined) return excluded
  if (config.mode === 'sidecar') {
    if (parseBool(annotations[sidecarInject] ?? '') === false) {
      return `annotation ${sidecarInject}: ${annotations[sidecarInject]}`
    }
    return annotations[interceptionMode] === 'NONE' ? `annotation ${interceptionMode}: NONE` : undefined
  }
  if (sidecarStatus in annotations) return `annotation ${sidecarStatus}: the pod has a sidecar`
  if (annotations[dataplaneMode] === 'none') return `annotation ${dataplaneMode}: none`
  return annotations[redirection] === 'disabled' ? `annotation ${redirection}: disabled` : undefined
}

/** The same, where the namespace alone says so. */
export function excludedByNamespace(
  { namespace }: Pod,
  { excludeNamespaces }: PolicyConfig,
): string | undefined {
  if (namespace === undefined || !excludeNamespaces.includes(namespace)) return undefined
  return `namespace ${namespace} is in excludeNamespaces`
}

function policyOf(pod: Pod, config: PolicyConfig, warnings: string[]): PodPolicy {
  const isSidecar = config.mode === 'sidecar'
  refuseVirtualInterfaces(pod, isSidecar ? sidecarVirtualInterfaces : virtualInterfaces)
  return {
    mode: config.mode,
    ...(config.proxyIdentity === undefined ? {} : { proxyIdentity: config.proxyIdentity }),
    dnsCapture: flag(pod, dnsCapture, isSidecar, warnings) ?? config.dnsCapture ?? !isSidecar,
    bypassInbound: flag(pod, bypassInboundCapture, isSidecar, warnings) ?? false,
    egressGuard: config.egressGuard,
    ...(isSidecar ? { sidecar: sidecarRules(pod, config) } : {}),
  }
}

function refuseVirtualInterfaces(pod: Pod, annotations: readonly string[]): void {
  for (const annotation of annotations) {
    const value = pod.annotations[annotation] ?? ''
    if (parseNames(value).length === 0) continue
    const why = 'capture happens at the socket, which forwarded traffic of virtual interfaces never reaches'
    throw new PolicyError(annotation, value, `${why}; remove the annotation or leave the pod out of the mesh`)
  }
}

/** An ambient annotation, three states. As in Istio, what cannot be parsed counts as absent. */
function flag(pod: Pod, annotation: string, isSidecar: boolean, warnings: string[]): boolean | undefined {
  const value = pod.annotations[annotation]
  if (value === undefined || isSidecar) return undefined
  const parsed = parseBool(value)
  if (parsed === undefined)
    warnings.push(`annotation ${annotation} ignored: ${JSON.stringify(value)} is not a boolean`)
  return parsed
}
