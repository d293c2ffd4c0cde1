// SPDX-License-Identifier: Apache-2.0
/**
 * The segment between nodes, as a netns with a bridge. It is also the router: pods of all nodes and all chains reach each other through
 * it, without address translation.
 *
 *   10.240.0.254, fd10:240::fe     default gateway of the nodes (10.240.0.N, fd10:240::N)
 *   10.232.0.254, fd10:232::fe     default gateway of macvlan pods, which are on this segment themselves
 */
import { addBridge, Netns, veth } from './netns.ts'

/** Pod networks of a node, routed to it by the segment. */
const routedNets = { bridge: 231, ptp: 233, callike: 236 } as const

export type RoutedNet = keyof typeof routedNets

export class Lan implements AsyncDisposable {
  readonly netns: Netns
  #nodes = 0

  private constructor(netns: Netns) {
    this.netns = netns
  }

  static async create(): Promise<Lan> {
    const netns = await Netns.create('lan')
    await addBridge(netns, 'lan0', [
      '10.240.0.254/24',
      'fd10:240::fe/64',
      '10.232.0.254/24',
      'fd10:232::fe/64',
    ])
    return new Lan(netns)
  }

  /** Give a netns the next node's addresses and routes, on `uplink`. */
  async join(node: Netns, uplink: string): Promise<number> {
    const index = ++this.#nodes
    await node.sysctl({ 'ipv4.ip_forward': 1, 'ipv6.conf.all.forwarding': 1 })
    await veth([this.netns, `node${index}`], [node, uplink])
    await this.netns.ip([`link set node${index} master lan0`])
    await node.ip([
      `addr add ${nodeAddress(index).ipv4}/24 dev ${uplink}`,
      `addr add ${nodeAddress(index).ipv6}/64 dev ${uplink} nodad`,
      'route add default via 10.240.0.254',
      'route add default via fd10:240::fe',
    ])
    const nets = (Object.keys(routedNets) as RoutedNet[]).map((net) => podSubnets(net, index))
    const { ipv4, ipv6 } = nodeAddress(index)
    await this.netns.ip(
      nets.flatMap((net) => [`route add ${net.ipv4} via ${ipv4}`, `route add ${net.ipv6} via ${ipv6}`]),
    )
    return index
  }

  dispose(): Promise<void> {
    return this.netns.dispose()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose()
  }
}

export function nodeAddress(index: number): { ipv4: string; ipv6: string } {
  return { ipv4: `10.240.0.${index}`, ipv6: `fd10:240::${index.toString(16)}` }
}

export function podSubnets(net: RoutedNet, node: number): { ipv4: string; ipv6: string } {
  return {
    ipv4: `10.${routedNets[net]}.${node}.0/24`,
    ipv6: `fd10:${routedNets[net]}:0:${node.toString(16)}::/64`,
  }
}
