// SPDX-License-Identifier: Apache-2.0
/** What the agent keeps of an object of the API: the few fields that it reads. */

export interface PodView {
  readonly uid: string
  readonly name: string
  readonly namespace: string
  /** Empty where no service account admission runs. */
  readonly serviceAccount: string
  readonly labels: Readonly<Record<string, string>>
  readonly annotations: Readonly<Record<string, string>>
  readonly hostNetwork: boolean
  readonly phase: string
  readonly ips: readonly string[]
  readonly deleting: boolean
  /** `kubernetes.io/config.hash`: the uid of a static pod in CNI_ARGS and in cgroup paths. */
  readonly configHash?: string
  /** Whom the container istio-proxy runs as; absent: its image decides. */
  readonly proxyUser?: number
  readonly proxyGroup?: number
}

export interface NamespaceView {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
}

/** Of v1.Pod and v1.Namespace, as JSON brings them. */
export interface ApiObject {
  readonly metadata?: {
    readonly name?: string
    readonly namespace?: string
    readonly uid?: string
    readonly resourceVersion?: string
    readonly labels?: Record<string, string>
    readonly annotations?: Record<string, string>
    readonly deletionTimestamp?: string
  }
  readonly spec?: {
    readonly serviceAccountName?: string
    readonly hostNetwork?: boolean
    readonly securityContext?: SecurityContext
    readonly containers?: readonly Container[]
    readonly initContainers?: readonly Container[]
  }
  readonly status?: { readonly phase?: string; readonly podIPs?: readonly { readonly ip?: string }[] }
}

interface SecurityContext {
  readonly runAsUser?: number
  readonly runAsGroup?: number
}

interface Container {
  readonly name?: string
  readonly securityContext?: SecurityContext
}

/** The whole object as JSON, once more: larger than all else that is kept. */
const lastApplied = 'kubectl.kubernetes.io/last-applied-configuration'

export function podView({ metadata = {}, spec = {}, status = {} }: ApiObject): PodView {
  const { [lastApplied]: _, ...annotations } = metadata.annotations ?? {}
  const configHash = annotations['kubernetes.io/config.hash']
  const { runAsUser, runAsGroup } = proxyContext(spec)
  return {
    uid: metadata.uid ?? '',
    name: metadata.name ?? '',
    namespace: metadata.namespace ?? '',
    serviceAccount: spec.serviceAccountName ?? '',
    labels: metadata.labels ?? {},
    annotations,
    hostNetwork: spec.hostNetwork ?? false,
    phase: status.phase ?? '',
    ips: (status.podIPs ?? []).flatMap(({ ip }) => (ip === undefined ? [] : [ip])),
    deleting: metadata.deletionTimestamp !== undefined,
    ...(configHash === undefined ? {} : { configHash }),
    ...(runAsUser === undefined ? {} : { proxyUser: runAsUser }),
    ...(runAsGroup === undefined ? {} : { proxyGroup: runAsGroup }),
  }
}

/** A native sidecar is an init container. The pod's security context holds where the container's is silent. */
function proxyContext({
  initContainers = [],
  containers = [],
  securityContext,
}: NonNullable<ApiObject['spec']>) {
  const proxy = [...initContainers, ...containers].find(({ name }) => name === 'istio-proxy')
  return proxy === undefined ? {} : { ...securityContext, ...proxy.securityContext }
}

export function namespaceView({ metadata = {} }: ApiObject): NamespaceView {
  return { name: metadata.name ?? '', labels: metadata.labels ?? {} }
}
