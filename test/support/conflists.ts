// SPDX-License-Identifier: Apache-2.0
/** Network configuration lists of a node's chains, dual stack. Append the plugin under test to `plugins`. */
import { podSubnets, type RoutedNet } from './lan.ts'

export interface PluginConf {
  readonly type: string
  readonly [field: string]: unknown
}

export interface Conflist {
  cniVersion: string
  name: string
  plugins: PluginConf[]
}

export interface ChainOptions {
  readonly cniVersion?: string
  /** Default true. IPv4 alone needs no `nodad` before the main plugin. */
  readonly ipv6?: boolean
}

/** What a conflist depends on: a `Node` fits. */
export interface ChainNode {
  readonly index: number
  readonly uplink: string
}

export const chains = { bridge, macvlan, ptp, callike }
export type ChainName = keyof typeof chains
export const chainNames = Object.keys(chains) as ChainName[]

/** One bridge with the node as gateway and no address translation. hairpinMode makes the plugin turn DAD off. */
export function bridge(node: ChainNode, options: ChainOptions = {}): Conflist {
  const main = {
    type: 'bridge',
    bridge: 'cni0',
    isGateway: true,
    ipMasq: false,
    hairpinMode: true,
    ipam: routed('bridge', node, options),
  }
  return conflist('bridge', [main], options)
}

/** Pods on the segment between the nodes. As ever with macvlan, they and their own node do not reach each other. */
export function macvlan(node: ChainNode, options: ChainOptions = {}): Conflist {
  const part = node.index * 16
  const range = (subnet: string, host: (n: number) => string, gateway: string) => [
    { subnet, rangeStart: host(part), rangeEnd: host(part + 15), gateway },
  ]
  const ipv4 = range('10.232.0.0/24', (n) => `10.232.0.${n}`, '10.232.0.254')
  const ipv6 = range('fd10:232::/64', (n) => `fd10:232::1:${n.toString(16)}`, 'fd10:232::fe')
  const main = { type: 'macvlan', master: node.uplink, mode: 'bridge', ipam: hostLocal(ipv4, ipv6, options) }
  return conflist('macvlan', withoutDad(main, options), options)
}

export function ptp(node: ChainNode, options: ChainOptions = {}): Conflist {
  const main = { type: 'ptp', ipMasq: false, ipam: routed('ptp', node, options) }
  return conflist('ptp', withoutDad(main, options), options)
}

/** Wired as Calico does: /32 and /128, gateway 169.254.1.1. */
export function callike(node: ChainNode, options: ChainOptions = {}): Conflist {
  return conflist('callike', [{ type: 'callike', ipam: routed('callike', node, options) }], options)
}

function conflist(chain: string, plugins: PluginConf[], { cniVersion = '1.0.0' }: ChainOptions): Conflist {
  return { cniVersion, name: `test-${chain}`, plugins }
}

function withoutDad(main: PluginConf, { ipv6 = true }: ChainOptions): PluginConf[] {
  return ipv6 ? [{ type: 'nodad' }, main] : [main]
}

function routed(net: RoutedNet, node: ChainNode, options: ChainOptions): object {
  const { ipv4, ipv6 } = podSubnets(net, node.index)
  return hostLocal([{ subnet: ipv4 }], [{ subnet: ipv6 }], options)
}

function hostLocal(ipv4: object[], ipv6: object[], options: ChainOptions): object {
  const dual = options.ipv6 ?? true
  return {
    type: 'host-local',
    ranges: dual ? [ipv4, ipv6] : [ipv4],
    routes: [{ dst: '0.0.0.0/0' }, ...(dual ? [{ dst: '::/0' }] : [])],
  }
}
