// SPDX-License-Identifier: Apache-2.0
/** What the tests run in the cluster, as objects for `kubectl apply`. */
import { image } from '../support/image.ts'
import type { KubeObject } from './kubectl.ts'
import { agentNamespace } from './manifest.ts'

type Strings = Readonly<Record<string, string>>

export interface PodSpec {
  readonly name: string
  readonly namespace?: string
  readonly labels?: Strings
  /** Default: sleep. */
  readonly command?: readonly string[]
  /** More of the container. */
  readonly container?: object
}

export function namespace(name: string, labels: Strings = {}): KubeObject {
  return { apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } }
}

export function pod(options: PodSpec): KubeObject & { readonly spec: object } {
  const { name, namespace = 'default', labels = {}, command = ['/bin/sleep', '1000000'], container } = options
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace, labels },
    spec: {
      terminationGracePeriodSeconds: 0,
      enableServiceLinks: false,
      containers: [{ name: 'app', image, imagePullPolicy: 'Never', command, ...container }],
    },
  }
}

/** A pod whose very first command dials, reports in one line of its log, and stays. */
export function dialler(options: PodSpec, host: string, port: number): KubeObject & { spec: object } {
  const script = `/bin/sock connect ${host} ${port}; exec sleep 1000000`
  return pod({ ...options, command: ['/bin/sh', '-c', script] })
}

export const ztunnelLabels = 'app=ztunnel'

/** The stand-in, with the service account, the rights and the socket of ztunnel. */
export function ztunnel(): KubeObject[] {
  const metadata = { name: 'ztunnel', namespace: agentNamespace }
  const labels = { app: 'ztunnel', 'istio.io/dataplane-mode': 'none', 'sidecar.istio.io/inject': 'false' }
  const container = {
    name: 'istio-proxy',
    image,
    imagePullPolicy: 'Never',
    command: ['/bin/ztunnel-standin', '--zds', '/var/run/ztunnel/ztunnel.sock'],
    // Its end is the end of the stand-in.
    stdin: true,
    securityContext: {
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'], add: ['NET_ADMIN', 'SYS_ADMIN', 'NET_RAW'] },
    },
    volumeMounts: [{ name: 'zds', mountPath: '/var/run/ztunnel' }],
  }
  const spec = {
    serviceAccountName: 'ztunnel',
    terminationGracePeriodSeconds: 30,
    tolerations: [{ operator: 'Exists' }],
    containers: [container],
    volumes: [{ name: 'zds', hostPath: { path: '/var/run/ztunnel', type: 'DirectoryOrCreate' } }],
  }
  const daemonSet = {
    apiVersion: 'apps/v1',
    kind: 'DaemonSet',
    metadata,
    spec: { selector: { matchLabels: { app: 'ztunnel' } }, template: { metadata: { labels }, spec } },
  }
  return [{ apiVersion: 'v1', kind: 'ServiceAccount', metadata }, daemonSet]
}
