// SPDX-License-Identifier: Apache-2.0
import type { PolicyConfig } from '../policy/pod.ts'

/** A result, 0.3.0 to 1.1.0. We hand results on and read only what is named here. */
export interface Result {
  readonly cniVersion?: string
  readonly interfaces?: readonly ResultInterface[]
  readonly ips?: readonly ResultIp[]
  readonly [key: string]: unknown
}

export interface ResultInterface {
  readonly name?: string
  readonly mac?: string
  /** Netns path; absent or empty on the node's side. */
  readonly sandbox?: string
}

export interface ResultIp {
  /** "4" or "6"; only up to 0.4.0. */
  readonly version?: string
  readonly address?: string
  readonly gateway?: string
  /** Index into `interfaces`. */
  readonly interface?: number
}

export interface RuntimeConfig {
  /** Cgroup path of the pod, relative to the cgroup root. */
  readonly cgroupPath?: string
  readonly 'io.kubernetes.cri.pod-annotations'?: Readonly<Record<string, string>> | null
}

export type LogLevel = 'error' | 'warn' | 'info' | 'debug'

/** One network configuration, validated, defaults filled in. Fields of other owners stay in it. */
export interface NetConf extends PolicyConfig {
  readonly cniVersion: string
  readonly name: string
  readonly type: string
  readonly logLevel: LogLevel
  readonly logFile: string
  readonly agentSocket: string
  readonly enrollmentFile: string
  readonly bpffs: string
  readonly capabilities?: Readonly<Record<string, boolean>> | null
  readonly runtimeConfig?: RuntimeConfig | null
  readonly prevResult?: Result | null
}

export interface Attachment {
  readonly containerID: string
  readonly ifname: string
}

interface AnyRequest {
  readonly config: NetConf
  /** What was tolerated: to be logged. */
  readonly warnings: readonly string[]
}

interface AttachmentRequest extends AnyRequest {
  readonly containerId: string
  readonly ifname: string
  /** CNI_ARGS. */
  readonly args: Readonly<Record<string, string>>
}

export interface AddRequest extends AttachmentRequest {
  readonly command: 'ADD'
  readonly netns: string
  /** The netns may be the plugin's own. */
  readonly netnsOverride: boolean
}

export interface CheckRequest extends AttachmentRequest {
  readonly command: 'CHECK'
  readonly netns: string
  readonly prevResult: Result
}

export interface DelRequest extends AttachmentRequest {
  readonly command: 'DEL'
  readonly netns?: string
}

export interface GcRequest extends AnyRequest {
  readonly command: 'GC'
  /** Absent: the runtime gave no list, so nothing may be removed. */
  readonly validAttachments?: readonly Attachment[]
}

export interface StatusRequest extends AnyRequest {
  readonly command: 'STATUS'
}

export interface VersionRequest {
  readonly command: 'VERSION'
}

export type CniRequest = AddRequest | CheckRequest | DelRequest | GcRequest | StatusRequest | VersionRequest

export type CniCommand = CniRequest['command']

/** What is printed when a command fails. */
export interface ErrorObject {
  readonly cniVersion: string
  readonly code: number
  readonly msg: string
  readonly details: string
}
