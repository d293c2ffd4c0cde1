// SPDX-License-Identifier: Apache-2.0
/** Envoy's bootstrap, with the listeners and clusters that istiod gives to a dual-stack sidecar, TCP only. */

/** A service that the sidecar knows: its virtual address, port 80, to one endpoint. */
export interface Service {
  readonly name: string
  readonly address: string
  readonly endpoint: { readonly address: string; readonly port: number }
}

/** One line of the access log, written when a connection ends. Addresses are `ip:port` or `[ip]:port`. */
export interface Connection {
  readonly chain: string
  /** The client. */
  readonly remote: string
  /** The original destination. */
  readonly local: string
  readonly cluster: string | null
  readonly upstream: string | null
  /** The local end of the connection to `upstream`. */
  readonly source: string | null
  /** `-` when all went well. */
  readonly flags: string
}

/** Inbound ports with a filter chain of their own. */
export const namedPort = 8080
/** The app behind it listens on loopback (a Sidecar resource with `defaultEndpoint`). */
export const localPort = 8081

const stream = 'type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog'
const tcp = 'type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy'
const original = 'type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst'

export function bootstrap(services: readonly Service[]): object {
  return {
    node: { id: 'sidecar', cluster: 'sidecar' },
    admin: { address: socketAddress('127.0.0.1', 15000) },
    static_resources: {
      listeners: [virtualOutbound(), ...services.map(outbound), virtualInbound()],
      clusters: [
        { name: 'BlackHoleCluster', type: 'STATIC' },
        originalDst('PassthroughCluster'),
        originalDst('InboundPassthroughClusterIpv4', '127.0.0.6'),
        originalDst('InboundPassthroughClusterIpv6', '::6'),
        originalDst(`inbound|${namedPort}||`, '127.0.0.6', '::6'),
        fixed(`inbound|${localPort}||`, '127.0.0.1', localPort),
        ...services.map(({ name, endpoint }) =>
          fixed(`outbound|80||${name}`, endpoint.address, endpoint.port),
        ),
      ],
    },
  }
}

function virtualOutbound(): object {
  return {
    name: 'virtualOutbound',
    traffic_direction: 'OUTBOUND',
    ...everywhere(15001),
    use_original_dst: true,
    filter_chains: [
      chain('virtualOutbound-blackhole', { destination_port: 15001 }, 'BlackHoleCluster'),
      chain('virtualOutbound-catchall-tcp', undefined, 'PassthroughCluster'),
    ],
  }
}

/** Not bound: virtualOutbound hands over what was meant for its address. */
function outbound({ name, address }: Service): object {
  return {
    name: `${address}_80`,
    traffic_direction: 'OUTBOUND',
    address: socketAddress(address, 80),
    bind_to_port: false,
    filter_chains: [chain(name, undefined, `outbound|80||${name}`)],
  }
}

function virtualInbound(): object {
  const of = (family: 'Ipv4' | 'Ipv6', address: string): object => {
    const match = { prefix_ranges: [{ address_prefix: address, prefix_len: 0 }] }
    return chain('virtualInbound', match, `InboundPassthroughCluster${family}`)
  }
  return {
    name: 'virtualInbound',
    traffic_direction: 'INBOUND',
    ...everywhere(15006),
    listener_filters: [{ name: 'envoy.filters.listener.original_dst', typed_config: { '@type': original } }],
    filter_chains: [
      chain('virtualInbound-blackhole', { destination_port: 15006 }, 'BlackHoleCluster'),
      ...[namedPort, localPort].map((port) =>
        chain(`0.0.0.0_${port}`, { destination_port: port }, `inbound|${port}||`),
      ),
      of('Ipv4', '0.0.0.0'),
      of('Ipv6', '::'),
    ],
  }
}

function everywhere(port: number): object {
  return {
    address: socketAddress('0.0.0.0', port),
    additional_addresses: [{ address: socketAddress('::', port) }],
  }
}

function chain(name: string, match: object | undefined, cluster: string): object {
  const json_format: Record<keyof Connection, string> = {
    chain: '%FILTER_CHAIN_NAME%',
    remote: '%DOWNSTREAM_REMOTE_ADDRESS%',
    local: '%DOWNSTREAM_LOCAL_ADDRESS%',
    cluster: '%UPSTREAM_CLUSTER%',
    upstream: '%UPSTREAM_HOST%',
    source: '%UPSTREAM_LOCAL_ADDRESS%',
    flags: '%RESPONSE_FLAGS%',
  }
  const access_log = [
    { name: 'envoy.access_loggers.stdout', typed_config: { '@type': stream, log_format: { json_format } } },
  ]
  const proxy = { '@type': tcp, stat_prefix: cluster, cluster, access_log }
  return {
    name,
    ...(match === undefined ? {} : { filter_chain_match: match }),
    filters: [{ name: 'envoy.filters.network.tcp_proxy', typed_config: proxy }],
  }
}

/** To the address that the client asked for, from `sources`, one per family. */
function originalDst(name: string, ...sources: readonly string[]): object {
  const [first, ...others] = sources.map((source) => socketAddress(source, 0).socket_address)
  const bind = {
    source_address: first,
    extra_source_addresses: others.map((address) => ({ address })),
  }
  return {
    name,
    type: 'ORIGINAL_DST',
    lb_policy: 'CLUSTER_PROVIDED',
    connect_timeout: '2s',
    ...(first === undefined ? {} : { upstream_bind_config: bind }),
  }
}

function fixed(name: string, address: string, port: number): object {
  const lb_endpoints = [{ endpoint: { address: socketAddress(address, port) } }]
  return { name, type: 'STATIC', load_assignment: { cluster_name: name, endpoints: [{ lb_endpoints }] } }
}

function socketAddress(address: string, port: number) {
  return { socket_address: { address, port_value: port } }
}
