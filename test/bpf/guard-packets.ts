// SPDX-License-Identifier: Apache-2.0
/** What a pod may try to send by hand. */
import {
  ack,
  arp,
  type Ends,
  ethernet,
  ethertypes,
  extension,
  fin,
  icmp,
  icmp6,
  ipv4,
  ipv6,
  protocols,
  psh,
  rst,
  syn,
  tcp,
  udp,
} from './frames.ts'

/** Ends of both families, between these hosts. */
export interface Between {
  readonly four: Ends
  readonly six: Ends
}

export interface Attempt {
  readonly what: string
  /** The mark is somewhere in what it makes. */
  readonly make: (ends: Between, mark: Buffer) => Buffer
  /** sll_protocol, where it is not what the frame says. */
  readonly claim?: number
}

const four = (payload: Buffer): Buffer => ethernet(ethertypes.ipv4, payload)
const six = (payload: Buffer): Buffer => ethernet(ethertypes.ipv6, payload)

function tcpFour(ends: Ends, flags: number, mark: Buffer, data = ''): Buffer {
  return ipv4(ends, protocols.tcp, tcp(ends, flags, mark, data))
}
function tcpSix(ends: Ends, flags: number, mark: Buffer, data = ''): Buffer {
  return ipv6(ends, protocols.tcp, tcp(ends, flags, mark, data))
}

const segments = [
  { name: 'SYN', flags: syn, data: '' },
  { name: 'SYN-ACK', flags: syn | ack, data: '' },
  { name: 'SYN with data', flags: syn, data: 'GET /' },
  { name: 'data', flags: ack | psh, data: 'GET /' },
  { name: 'FIN with data', flags: ack | fin, data: 'GET /' },
  { name: 'RST with data', flags: rst, data: 'GET /' },
]
/** TCP that says something, as IP packets. */
export const packets: readonly Attempt[] = [
  ...segments.map(({ name, flags, data }) => ({
    what: `${name} over IPv4`,
    make: (ends: Between, mark: Buffer) => tcpFour(ends.four, flags, mark, data),
  })),
  ...segments.map(({ name, flags, data }) => ({
    what: `${name} over IPv6`,
    make: (ends: Between, mark: Buffer) => tcpSix(ends.six, flags, mark, data),
  })),
]
const isSix = (packet: Buffer): boolean => packet.readUInt8(0) >> 4 === 6

const moreFragments = 0x2000
/** As Ethernet frames: the same, and TCP that is hard to recognize. */
export const hidden: readonly Attempt[] = [
  ...packets.map(({ what, make }) => ({
    what,
    make: (ends: Between, mark: Buffer): Buffer => {
      const packet = make(ends, mark)
      return isSix(packet) ? six(packet) : four(packet)
    },
  })),
  ...[ethertypes.arp, ethertypes.ipv6, ethertypes.local].map((claim) => ({
    what: `SYN that is said to be of ethertype ${claim.toString(16)}`,
    claim,
    make: (ends: Between, mark: Buffer) => four(tcpFour(ends.four, syn, mark)),
  })),
  {
    what: 'SYN in a VLAN',
    make: ({ four: ends }, mark) =>
      ethernet(ethertypes.vlan, Buffer.concat([Buffer.from('00010800', 'hex'), tcpFour(ends, syn, mark)])),
  },
  {
    what: 'SYN in a VLAN that is said to be IPv4',
    claim: ethertypes.ipv4,
    make: ({ four: ends }, mark) =>
      ethernet(ethertypes.vlan, Buffer.concat([Buffer.from('00010800', 'hex'), tcpFour(ends, syn, mark)])),
  },
  {
    what: 'SYN with an ethertype of its own',
    make: ({ four: ends }, mark) => ethernet(ethertypes.local, tcpFour(ends, syn, mark)),
  },
  {
    what: 'the first fragment of a SYN',
    make: ({ four: ends }, mark) => four(ipv4(ends, protocols.tcp, tcp(ends, syn, mark), moreFragments)),
  },
  {
    what: 'a later fragment of TCP',
    make: ({ four: ends }, mark) => four(ipv4(ends, protocols.tcp, tcp(ends, ack, mark), 1)),
  },
  ...(['ipip', 'sixInFour', 'gre', 'esp', 'sctp'] as const).map((name) => ({
    what: `SYN in ${name} over IPv4`,
    make: (ends: Between, mark: Buffer) =>
      four(ipv4(ends.four, protocols[name], tcpFour(ends.four, syn, mark))),
  })),
  ...(['ipip', 'sixInFour', 'gre', 'esp', 'sctp'] as const).map((name) => ({
    what: `SYN in ${name} over IPv6`,
    make: (ends: Between, mark: Buffer) => six(ipv6(ends.six, protocols[name], tcpSix(ends.six, syn, mark))),
  })),
  ...(['hopByHop', 'routing', 'fragment', 'options'] as const).map((name) => ({
    what: `SYN behind an IPv6 header: ${name}`,
    make: ({ six: ends }: Between, mark: Buffer) =>
      six(ipv6(ends, protocols[name], extension(protocols.tcp, tcp(ends, syn, mark)))),
  })),
]

export const harmless: readonly Attempt[] = [
  { what: 'ARP', make: ({ four: ends }, mark) => ethernet(ethertypes.arp, arp(ends, mark)) },
  { what: 'ICMP', make: ({ four: ends }, mark) => four(ipv4(ends, protocols.icmp, icmp(8, mark))) },
  { what: 'ICMPv6', make: ({ six: ends }, mark) => six(ipv6(ends, protocols.icmp6, icmp6(ends, 128, mark))) },
  { what: 'NDP', make: ({ six: ends }, mark) => six(ipv6(ends, protocols.icmp6, icmp6(ends, 135, mark))) },
  {
    what: 'MLD, behind a hop-by-hop header',
    make: ({ six: ends }, mark) =>
      six(ipv6(ends, protocols.hopByHop, extension(protocols.icmp6, icmp6(ends, 143, mark)))),
  },
  { what: 'UDP over IPv4', make: ({ four: ends }, mark) => four(ipv4(ends, protocols.udp, udp(ends, mark))) },
  { what: 'UDP over IPv6', make: ({ six: ends }, mark) => six(ipv6(ends, protocols.udp, udp(ends, mark))) },
  { what: 'RST over IPv4', make: ({ four: ends }, mark) => four(tcpFour(ends, rst, mark)) },
  { what: 'RST over IPv6', make: ({ six: ends }, mark) => six(tcpSix(ends, rst | ack, mark)) },
  { what: 'ACK over IPv4', make: ({ four: ends }, mark) => four(tcpFour(ends, ack, mark)) },
]
