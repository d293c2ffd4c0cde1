// SPDX-License-Identifier: Apache-2.0
/** Objects as the API server gives them, with what a client has no use for. */
import { randomUUID } from 'node:crypto'

export interface KubeObject {
  kind: 'Pod' | 'Namespace'
  apiVersion: 'v1'
  metadata: {
    name: string
    namespace?: string
    uid: string
    resourceVersion: string
    labels: Record<string, string>
    annotations: Record<string, string>
    deletionTimestamp?: string
    managedFields: unknown[]
  }
  spec: Record<string, unknown>
  status: Record<string, unknown>
}

export interface PodOptions {
  readonly name?: string
  readonly namespace?: string
  readonly uid?: string
  readonly nodeName?: string
  readonly serviceAccount?: string
  readonly labels?: Readonly<Record<string, string>>
  readonly annotations?: Readonly<Record<string, string>>
  readonly hostNetwork?: boolean
  readonly phase?: string
  readonly ips?: readonly string[]
  /** Merged into the spec. */
  readonly spec?: Readonly<Record<string, unknown>>
}

export interface NamespaceOptions {
  readonly name?: string
  readonly labels?: Readonly<Record<string, string>>
}

const managedFields = [
  { manager: 'kubelet', operation: 'Update', fieldsType: 'FieldsV1', fieldsV1: { 'f:metadata': {} } },
]

export function makePod(options: PodOptions = {}): KubeObject {
  const { name = 'web', namespace = 'shop', uid = randomUUID(), ips = ['10.0.0.1'] } = options
  const { nodeName = 'node1', serviceAccount = 'default', hostNetwork = false, phase = 'Running' } = options
  return {
    kind: 'Pod',
    apiVersion: 'v1',
    metadata: {
      ...{ name, namespace, uid, resourceVersion: '', managedFields },
      labels: { ...options.labels },
      annotations: { ...options.annotations },
    },
    spec: {
      nodeName,
      serviceAccountName: serviceAccount,
      ...(hostNetwork ? { hostNetwork } : {}),
      containers: [{ name: 'app', image: 'app:1' }],
      ...options.spec,
    },
    status: { phase, ...(ips.length === 0 ? {} : { podIP: ips[0], podIPs: ips.map((ip) => ({ ip })) }) },
  }
}

export function makeNamespace({ name = 'shop', labels = {} }: NamespaceOptions = {}): KubeObject {
  return {
    kind: 'Namespace',
    apiVersion: 'v1',
    metadata: {
      ...{ name, uid: randomUUID(), resourceVersion: '', managedFields },
      labels: { 'kubernetes.io/metadata.name': name, ...labels },
      annotations: {},
    },
    spec: { finalizers: ['kubernetes'] },
    status: { phase: 'Active' },
  }
}

/** RFC 7386. */
export function mergePatch(target: unknown, patch: unknown): unknown {
  if (typeof patch !== 'object' || patch === null || Array.isArray(patch)) return patch
  const merged: Record<string, unknown> =
    typeof target === 'object' && target !== null && !Array.isArray(target) ? { ...target } : {}
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete merged[key]
    else merged[key] = mergePatch(merged[key], value)
  }
  return merged
}
