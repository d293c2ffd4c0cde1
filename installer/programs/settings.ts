// SPDX-License-Identifier: Apache-2.0
import { ProbeMode, ProxyIdentity, type Settings } from '../../src/bpf/store.ts'
import { Netns } from '../../src/linux/netns.ts'
import { RemedyError } from '../../src/remedy.ts'

export const probeModes = ['kubelet', 'uid', 'any-host-socket', 'off'] as const

export interface LoadOptions {
  readonly bpffs: string
  /** `auto` or a path. */
  readonly cgroup?: string
  readonly proxyIdentity?: 'cgroup' | 'mark'
  readonly proxyCgroups: readonly string[]
  readonly sharedProxyNetns?: string
  readonly probes?: (typeof probeModes)[number]
  readonly kubeletCgroup?: string
  readonly kubeletUid?: number
  readonly sidecar?: boolean
  readonly guard?: boolean
}

export interface ProxyCgroup {
  readonly dir: string
  readonly id: bigint
  readonly level: number
}

const identities = { cgroup: ProxyIdentity.cgroup, mark: ProxyIdentity.mark }
const probes = {
  kubelet: ProbeMode.kubelet,
  uid: ProbeMode.uid,
  'any-host-socket': ProbeMode.anyHostSocket,
  off: ProbeMode.off,
}

/** captureCgroup comes with the links. */
export function settingsFor(
  options: LoadOptions,
  known: Settings | undefined,
  proxies: readonly ProxyCgroup[],
): Omit<Settings, 'captureCgroup'> {
  const isFirst = known === undefined || known.defaultIdentity === 0
  const identity = options.proxyIdentity === undefined ? undefined : identities[options.proxyIdentity]
  const probe = options.probes === undefined ? undefined : probes[options.probes]
  const shared = options.sharedProxyNetns === undefined ? undefined : sharedProxy(options.sharedProxyNetns)
  const sidecar = options.sidecar === undefined ? undefined : Number(options.sidecar)
  const guard = options.guard === undefined ? undefined : Number(options.guard)
  return {
    hostNetns: netnsCookie('/proc/self/ns/net'),
    sharedNetns: shared?.cookie ?? known?.sharedNetns ?? 0n,
    shared4: shared?.ipv4 ?? known?.shared4 ?? '',
    shared6: shared?.ipv6 ?? known?.shared6 ?? '',
    proxyLevels: proxies.reduce((bits, { level }) => bits | (1 << level), 0),
    kubeletUid: options.kubeletUid ?? known?.kubeletUid ?? 0,
    objects: known?.objects ?? 0,
    probes: probe ?? (isFirst ? ProbeMode.off : known.probes),
    defaultIdentity: identity ?? (isFirst ? ProxyIdentity.cgroup : known.defaultIdentity),
    sidecar: sidecar ?? known?.sidecar ?? 0,
    guard: guard ?? known?.guard ?? 0,
  }
}

function netnsCookie(path: string): bigint {
  using netns = Netns.open(path)
  return netns.cookie()
}

function sharedProxy(path: string) {
  using netns = Netns.open(path)
  const usable = netns.addresses().filter(({ scope, internal }) => scope === 'global' && !internal)
  if (usable.length === 0) {
    const remedy = 'start the proxy pod first: captured connections are sent to its address'
    throw new RemedyError(`--shared-proxy-netns: ${path} has no address`, remedy)
  }
  const first = (family: 4 | 6) => usable.find((address) => address.family === family)?.address ?? ''
  return { cookie: netns.cookie(), ipv4: first(4), ipv6: first(6) }
}
