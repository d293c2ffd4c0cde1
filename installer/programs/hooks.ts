// SPDX-License-Identifier: Apache-2.0
import { type AttachType, attachTypes } from '../../src/bpf/link.ts'

export interface Hook {
  readonly program: string
  readonly attachType: AttachType
}

/** On every capture cgroup, and on the cgroup of a proxy that lies outside. */
export const captureHooks: readonly Hook[] = [
  { program: 'ambridge_connect4', attachType: attachTypes.CGROUP_INET4_CONNECT },
  { program: 'ambridge_connect6', attachType: attachTypes.CGROUP_INET6_CONNECT },
  { program: 'ambridge_sendmsg4', attachType: attachTypes.CGROUP_UDP4_SENDMSG },
  { program: 'ambridge_sendmsg6', attachType: attachTypes.CGROUP_UDP6_SENDMSG },
  { program: 'ambridge_recvmsg4', attachType: attachTypes.CGROUP_UDP4_RECVMSG },
  { program: 'ambridge_recvmsg6', attachType: attachTypes.CGROUP_UDP6_RECVMSG },
  { program: 'ambridge_getpeername4', attachType: attachTypes.CGROUP_INET4_GETPEERNAME },
  { program: 'ambridge_getpeername6', attachType: attachTypes.CGROUP_INET6_GETPEERNAME },
  { program: 'ambridge_sockops', attachType: attachTypes.CGROUP_SOCK_OPS },
]

/** Where proxies run. A getsockopt hook costs each getsockopt() below it, so not wider than needed. */
export const proxyHooks: readonly Hook[] = [
  { program: 'ambridge_bind4', attachType: attachTypes.CGROUP_INET4_BIND },
  { program: 'ambridge_bind6', attachType: attachTypes.CGROUP_INET6_BIND },
  { program: 'ambridge_getsockopt', attachType: attachTypes.CGROUP_GETSOCKOPT },
]

/** On every capture cgroup, for pods with egressGuard. It costs each setsockopt() below. */
export const guardHook: Hook = {
  program: 'ambridge_setsockopt',
  attachType: attachTypes.CGROUP_SETSOCKOPT,
}

/** Where the kubelet runs. */
export const probeHook: Hook = { program: 'ambridge_probes', attachType: attachTypes.CGROUP_SOCK_OPS }

/** Beside it with `--probes uid`. */
export const userHooks: readonly Hook[] = [
  { program: 'ambridge_user4', attachType: attachTypes.CGROUP_INET4_CONNECT },
  { program: 'ambridge_user6', attachType: attachTypes.CGROUP_INET6_CONNECT },
]
