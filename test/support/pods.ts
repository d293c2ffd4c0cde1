// SPDX-License-Identifier: Apache-2.0
import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { cgroup2Root } from './cgroup.ts'
import type { ContainerConfig, PodSandboxConfig, SecurityContext } from './cri.ts'
import type { ExecResult } from './exec.ts'
import { image } from './image.ts'
import type { Node } from './node.ts'
import { removeResource } from './runtime/resource.ts'

type Strings = Readonly<Record<string, string>>

export interface PodOptions extends Partial<Omit<ContainerOptions, 'name'>> {
  readonly name?: string
  readonly namespace?: string
  readonly uid?: string
  readonly annotations?: Strings
  readonly labels?: Strings
  readonly cgroupParent?: string
  /** Make the pod's cgroup before the sandbox, as the kubelet does on a v2 node. Default true. */
  readonly mkCgroup?: boolean
  readonly hostNetwork?: boolean
  readonly hostPorts?: readonly { readonly hostPort: number; readonly containerPort: number }[]
  /** Deadline of RunPodSandbox, and so of ADD. */
  readonly timeoutMs?: number
}

export interface ContainerOptions {
  readonly name: string
  /** Default: an HTTP server on port 8080 (both families) that answers /hostname with the pod's name. */
  readonly command?: readonly string[]
  readonly args?: readonly string[]
  readonly env?: Strings
  /** Path in the container -> path in the node. */
  readonly mounts?: Strings
  readonly user?: { readonly uid: number; readonly gid: number }
  readonly capabilities?: readonly string[]
  readonly privileged?: boolean
}

export interface Container {
  readonly id: string
  readonly pid: number
  /** Directory in cgroup2, as the test process sees it. */
  readonly cgroupDir: string
  exec(command: readonly string[], options?: { timeoutMs?: number }): Promise<ExecResult>
  log(): string
  /** SIGKILL, and remove. */
  remove(): Promise<void>
}

export interface Pod extends Container, AsyncDisposable {
  /** `id`, `pid`, `exec` are those of the pod's first container; this is the sandbox, which plugins know as CNI_CONTAINERID. */
  readonly sandboxId: string
  readonly name: string
  readonly namespace: string
  readonly uid: string
  readonly ip: string
  /** All addresses, IPv4 first. */
  readonly ips: readonly string[]
  /** CNI_NETNS, a path in the node; `netnsPath` is the same for the test process. */
  readonly cniNetns: string
  readonly netnsPath: string
  /** The pod's cgroup: as in /proc/PID/cgroup, and as a directory. */
  readonly cgroupPath: string
  readonly podCgroupDir: string
  addContainer(options: ContainerOptions): Promise<Container>
}

const httpServer = ['/bin/httpd', '-f', '-p', '[::]:8080', '-h', '/etc'] as const

/** RunPodSandbox and one container, as the kubelet would. Rejects with the runtime's error when a plugin refuses. */
export async function runPod(node: Node, options: PodOptions = {}): Promise<Pod> {
  const config = sandboxConfig(node, options)
  const { metadata, linux } = config
  mkdirSync(config.log_directory, { recursive: true })
  const podCgroupDir = cgroup2Root() + linux.cgroup_parent
  if (options.mkCgroup ?? true) mkdirSync(podCgroupDir, { recursive: true })
  const deadline = options.timeoutMs === undefined ? {} : { timeoutMs: options.timeoutMs }
  const { pod_sandbox_id: sandboxId } = await node.cri.RunPodSandbox({ config }, deadline)
  const remove = async (): Promise<void> => {
    await node.cri.StopPodSandbox({ pod_sandbox_id: sandboxId })
    await node.cri.RemovePodSandbox({ pod_sandbox_id: sandboxId })
    await removeResource({ kind: 'cgroup', path: linux.cgroup_parent })
  }
  try {
    const network = await sandboxNetwork(node, sandboxId)
    const addContainer = (spec: ContainerOptions): Promise<Container> =>
      runContainer(node, sandboxId, config, spec)
    const first = await addContainer({ command: httpServer, ...options, name: 'app' })
    return {
      ...first,
      ...network,
      sandboxId,
      name: metadata.name,
      namespace: metadata.namespace,
      uid: metadata.uid,
      cgroupPath: linux.cgroup_parent,
      podCgroupDir,
      addContainer,
      remove,
      [Symbol.asyncDispose]: remove,
    }
  } catch (err) {
    await remove()
    throw err
  }
}

export function sandboxConfig(node: Node, options: PodOptions = {}): PodSandboxConfig {
  const { name = 'web-0', namespace = 'shop', uid = randomUUID() } = options
  const kubeletLabels = {
    'io.kubernetes.pod.name': name,
    'io.kubernetes.pod.namespace': namespace,
    'io.kubernetes.pod.uid': uid,
  }
  return {
    metadata: { name, uid, namespace, attempt: 0 },
    hostname: name,
    log_directory: `${node.dir}/logs/${uid}`,
    dns_config: {
      servers: ['10.96.0.10'],
      searches: [`${namespace}.svc.cluster.local`],
      options: ['ndots:5'],
    },
    port_mappings: (options.hostPorts ?? []).map((port) => ({
      protocol: 'TCP',
      container_port: port.containerPort,
      host_port: port.hostPort,
    })),
    labels: { ...kubeletLabels, ...options.labels },
    annotations: { 'kubernetes.io/config.source': 'api', ...options.annotations },
    linux: {
      cgroup_parent: options.cgroupParent ?? `${node.kubepods.path}/besteffort/pod${uid}`,
      security_context: security({ name, privileged: options.privileged ?? false }, options.hostNetwork),
    },
  }
}

async function sandboxNetwork(node: Node, id: string) {
  const { status, info } = await node.cri.PodSandboxStatus({ pod_sandbox_id: id, verbose: true })
  type Spec = { runtimeSpec: { linux: { namespaces: { type: string; path?: string }[] } } }
  const { runtimeSpec } = JSON.parse(info['info'] ?? '{}') as Spec
  const cniNetns = runtimeSpec.linux.namespaces.find(({ type }) => type === 'network')?.path ?? ''
  const ip = status.network?.ip ?? ''
  const others = (status.network?.additional_ips ?? []).map((other) => other.ip)
  const netnsPath = cniNetns ? node.hostPath(cniNetns) : node.netns.path
  return { ip, ips: [ip, ...others].filter(Boolean), cniNetns, netnsPath }
}

async function runContainer(
  node: Node,
  sandbox: string,
  pod: PodSandboxConfig,
  spec: ContainerOptions,
): Promise<Container> {
  const { cri } = node
  const config = containerConfig(spec, pod.linux.security_context)
  const request = { pod_sandbox_id: sandbox, config, sandbox_config: pod }
  const { container_id: id } = await cri.CreateContainer(request)
  await cri.StartContainer({ container_id: id })
  const { info } = await cri.ContainerStatus({ container_id: id, verbose: true })
  const { pid } = JSON.parse(info['info'] ?? '{}') as { pid: number }
  const log = (): string => {
    const path = `${pod.log_directory}/${config.log_path}`
    return existsSync(path) ? readFileSync(path, 'utf8') : ''
  }
  return {
    id,
    pid,
    cgroupDir: cgroup2Root() + cgroupOf(pid),
    log,
    exec: async (command, { timeoutMs = 10_000 } = {}) => {
      const seconds = Math.ceil(timeoutMs / 1000)
      const reply = await cri.ExecSync(
        { container_id: id, cmd: [...command], timeout: seconds },
        { timeoutMs: timeoutMs + 5_000 },
      )
      return { stdout: reply.stdout.toString(), stderr: reply.stderr.toString(), code: reply.exit_code }
    },
    remove: async () => {
      await cri.StopContainer({ container_id: id, timeout: 0 })
      await cri.RemoveContainer({ container_id: id })
    },
  }
}

function containerConfig(spec: ContainerOptions, pod: SecurityContext): ContainerConfig {
  const hostNetwork = pod.namespace_options.network === 'NODE'
  return {
    metadata: { name: spec.name, attempt: 0 },
    image: { image },
    command: [...(spec.command ?? [])],
    args: [...(spec.args ?? [])],
    envs: Object.entries(spec.env ?? {}).map(([key, value]) => ({ key, value })),
    mounts: Object.entries(spec.mounts ?? {}).map(([inside, path]) => ({
      container_path: inside,
      host_path: path,
      readonly: false,
    })),
    log_path: `${spec.name}_0.log`,
    labels: { 'io.kubernetes.container.name': spec.name },
    linux: {
      resources: { cpu_shares: 2, oom_score_adj: 1000 },
      security_context: security(spec, hostNetwork),
    },
  }
}

function security(spec: ContainerOptions, hostNetwork = false): SecurityContext {
  return {
    namespace_options: { network: hostNetwork ? 'NODE' : 'POD', pid: 'CONTAINER', ipc: 'POD' },
    seccomp: { profile_type: 'Unconfined' },
    ...(spec.privileged ? { privileged: true } : {}),
    ...(spec.capabilities ? { capabilities: { add_capabilities: [...spec.capabilities] } } : {}),
    ...(spec.user ? { run_as_user: { value: spec.user.uid }, run_as_group: { value: spec.user.gid } } : {}),
  }
}

/** Its cgroup2 path. */
export function cgroupOf(pid: number): string {
  const line = readFileSync(`/proc/${pid}/cgroup`, 'utf8')
    .split('\n')
    .find((each) => each.startsWith('0::'))
  if (line === undefined) throw new Error(`process ${pid} has no cgroup2`)
  return line.slice(3)
}
