// SPDX-License-Identifier: Apache-2.0
import type { Pod } from '../policy/pod.ts'
import { parseNetConf } from './config.ts'
import { attachmentEnv, commandOf, type Env } from './env.ts'
import { CniCode, CniError } from './errors.ts'
import { isObject } from './json.ts'
import type {
  AddRequest,
  Attachment,
  CheckRequest,
  CniRequest,
  DelRequest,
  GcRequest,
  NetConf,
} from './types.ts'

/** Environment and stdin → what is asked for. VERSION looks at neither. */
export function parseRequest(env: Env, stdin: string): CniRequest {
  const command = commandOf(env)
  if (command === 'VERSION') return { command }
  const warnings: string[] = []
  if (command === 'GC' || command === 'STATUS') {
    const parsed = parseNetConf(command, stdin)
    return command === 'GC' ? gcRequest(parsed) : { command, ...parsed }
  }
  const attachment = attachmentEnv(command, env, warnings)
  const parsed = parseNetConf(command, stdin)
  warnings.push(...parsed.warnings)
  return attachmentRequest({ command, ...attachment, config: parsed.config, warnings })
}

/** The pod that the runtime names, by CNI_ARGS and by capability. */
export function podOf(request: AddRequest | CheckRequest | DelRequest): Pod {
  const { K8S_POD_NAMESPACE: namespace, K8S_POD_NAME: name, K8S_POD_UID: uid } = request.args
  return {
    ...(namespace ? { namespace } : {}),
    ...(name ? { name } : {}),
    ...(uid ? { uid } : {}),
    annotations: request.config.runtimeConfig?.['io.kubernetes.cri.pod-annotations'] ?? {},
  }
}

/** For messages: namespace/name, or the container where the runtime names no pod. */
export function podName(request: AddRequest | CheckRequest): string {
  const { namespace, name } = podOf(request)
  return name === undefined ? `container ${request.containerId}` : `pod ${namespace ?? 'default'}/${name}`
}

interface Parts extends Omit<AddRequest, 'command' | 'netns'> {
  readonly command: 'ADD' | 'CHECK' | 'DEL'
  readonly netns?: string
}

function attachmentRequest({
  netnsOverride,
  netns = '',
  ...parts
}: Parts): AddRequest | CheckRequest | DelRequest {
  const { command, ...rest } = parts
  if (command === 'ADD') return { command, ...rest, netns, netnsOverride }
  if (command === 'DEL') return netns === '' ? { command, ...rest } : { command, ...rest, netns }
  const { prevResult } = rest.config
  if (isObject(prevResult)) return { command, ...rest, netns, prevResult }
  throw new CniError(CniCode.invalidConfig, 'invalid network configuration: prevResult is missing', {
    details: 'CHECK compares with the result of ADD: the container runtime passes it in prevResult',
  })
}

/** null says as little as no list does: nothing is to be removed. */
function gcRequest(parsed: { config: NetConf; warnings: readonly string[] }): GcRequest {
  const keys = parsed.config as unknown as Record<string, readonly Attachment[] | null | undefined>
  // The second name is what the specification's text once said; libcni sends both.
  const list = keys['cni.dev/valid-attachments'] ?? keys['cni.dev/attachments']
  return list ? { command: 'GC', ...parsed, validAttachments: list } : { command: 'GC', ...parsed }
}
