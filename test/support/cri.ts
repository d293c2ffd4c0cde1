// SPDX-License-Identifier: Apache-2.0
/** CRI v1 client: what the kubelet says to a container runtime. Errors carry the text that a user sees in `details`. */
import { fileURLToPath } from 'node:url'
import {
  type Client,
  credentials,
  loadPackageDefinition,
  type ServiceClientConstructor,
  type ServiceError,
} from '@grpc/grpc-js'
import { loadSync } from '@grpc/proto-loader'

type Strings = Readonly<Record<string, string>>

export interface PodSandboxConfig {
  metadata: { name: string; uid: string; namespace: string; attempt: number }
  hostname: string
  log_directory: string
  dns_config: { servers: string[]; searches: string[]; options: string[] }
  port_mappings: { protocol: 'TCP' | 'UDP'; container_port: number; host_port: number }[]
  labels: Strings
  annotations: Strings
  linux: { cgroup_parent: string; security_context: SecurityContext }
}

export interface SecurityContext {
  namespace_options: { network: 'POD' | 'NODE'; pid: 'POD' | 'CONTAINER'; ipc: 'POD' }
  seccomp: { profile_type: 'Unconfined' | 'RuntimeDefault' }
  privileged?: boolean
  capabilities?: { add_capabilities?: string[]; drop_capabilities?: string[] }
  run_as_user?: { value: number }
  run_as_group?: { value: number }
}

export interface ContainerConfig {
  metadata: { name: string; attempt: number }
  image: { image: string }
  command: string[]
  args: string[]
  envs: { key: string; value: string }[]
  mounts: { container_path: string; host_path: string; readonly: boolean }[]
  log_path: string
  labels: Strings
  linux: { resources: { cpu_shares: number; oom_score_adj: number }; security_context: SecurityContext }
}

export interface PodSandboxStatus {
  id: string
  metadata: PodSandboxConfig['metadata']
  state: 'SANDBOX_READY' | 'SANDBOX_NOTREADY'
  network: { ip: string; additional_ips: { ip: string }[] } | null
  labels: Strings
  annotations: Strings
}

export interface RuntimeCondition {
  type: 'RuntimeReady' | 'NetworkReady'
  status: boolean
  reason: string
  message: string
}

interface Rpcs {
  Version: [object, { version: string; runtime_name: string; runtime_version: string }]
  Status: [{ verbose?: boolean }, { status: { conditions: RuntimeCondition[] }; info: Strings }]
  RunPodSandbox: [{ config: PodSandboxConfig }, { pod_sandbox_id: string }]
  StopPodSandbox: [{ pod_sandbox_id: string }, object]
  RemovePodSandbox: [{ pod_sandbox_id: string }, object]
  PodSandboxStatus: [
    { pod_sandbox_id: string; verbose?: boolean },
    { status: PodSandboxStatus; info: Strings },
  ]
  ListPodSandbox: [object, { items: { id: string; metadata: PodSandboxConfig['metadata']; state: string }[] }]
  CreateContainer: [
    { pod_sandbox_id: string; config: ContainerConfig; sandbox_config: PodSandboxConfig },
    { container_id: string },
  ]
  StartContainer: [{ container_id: string }, object]
  StopContainer: [{ container_id: string; timeout: number }, object]
  RemoveContainer: [{ container_id: string }, object]
  ContainerStatus: [
    { container_id: string; verbose?: boolean },
    {
      status: { id: string; state: string; exit_code: number; reason: string; message: string }
      info: Strings
    },
  ]
  ListContainers: [object, { items: { id: string; pod_sandbox_id: string; state: string }[] }]
  ExecSync: [
    { container_id: string; cmd: string[]; timeout: number },
    { stdout: Buffer; stderr: Buffer; exit_code: number },
  ]
  ListImages: [object, { images: { id: string; repo_tags: string[] }[] }]
}

/** Every rpc as a method. `timeoutMs` is the caller's deadline, which for RunPodSandbox is the only one that a plugin has. */
export type CriClient = {
  readonly [M in keyof Rpcs]: (request: Rpcs[M][0], options?: { timeoutMs?: number }) => Promise<Rpcs[M][1]>
} & { close(): void }

export type CriError = ServiceError

const proto = fileURLToPath(new URL('./runtime/cri.proto', import.meta.url))

// The runtime is asked while it starts: grpc's default waits a second before it connects again.
const channel = { 'grpc.initial_reconnect_backoff_ms': 20, 'grpc.max_reconnect_backoff_ms': 100 }

export function connectCri(sock: string, { timeoutMs = 60_000 } = {}): CriClient {
  const definition = loadSync(proto, { keepCase: true, longs: Number, enums: String, defaults: true })
  const { v1 } = loadPackageDefinition(definition)['runtime'] as unknown as {
    v1: Record<string, ServiceClientConstructor>
  }
  const clients: Client[] = []
  const methods: Record<string, unknown> = {}
  for (const Service of [v1['RuntimeService'], v1['ImageService']]) {
    if (!Service) throw new Error('cri.proto lacks a service')
    const client = new Service(`unix://${sock}`, credentials.createInsecure(), channel)
    clients.push(client)
    for (const [name, { path, requestSerialize, responseDeserialize }] of Object.entries(Service.service)) {
      methods[name] = (request: object, options: { timeoutMs?: number } = {}) =>
        new Promise((resolve, reject) => {
          const deadline = Date.now() + (options.timeoutMs ?? timeoutMs)
          client.makeUnaryRequest(
            path,
            requestSerialize,
            responseDeserialize,
            request,
            { deadline },
            (err, reply) => {
              if (err) reject(err)
              else resolve(reply)
            },
          )
        })
    }
  }
  const close = (): void => {
    for (const client of clients) client.close()
  }
  return { ...methods, close } as unknown as CriClient
}
