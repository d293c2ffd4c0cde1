// SPDX-License-Identifier: Apache-2.0
/** One HTTP connection from a process in one pod to another pod, and what everybody saw of it. */
import { endpoint, type Family, ipOf } from '../support/mesh.ts'
import type { Pod } from '../support/pods.ts'
import { type ConnectResult, parseLines } from '../support/sock.ts'
import type { ProxyConnection, ZtunnelStandin } from '../support/standin.ts'
import { type Attempt, expected, noteOf, type Outcome, type Party } from './expect.ts'
import type { Mode } from './mesh-node.ts'

export const appPort = 8080

export interface MeshPod {
  readonly pod: Pod
  readonly enrolled: boolean
}

export interface Route {
  /** For people: the chain, or two. */
  readonly chain: string
  readonly mode: Mode
  readonly client: MeshPod
  readonly server: MeshPod
  /** Whose proxies may see it, that of the client's node first. */
  readonly proxies: readonly ZtunnelStandin[]
  readonly ztunnelPod: Pod
}

export interface Row extends Attempt {
  readonly chain: string
  readonly family: string
  readonly outcome: Outcome
  readonly expected: Outcome
  readonly note: string | undefined
}

export async function dial(route: Route, family: Family): Promise<Row> {
  const { chain, mode, client, server, proxies, ztunnelPod } = route
  const ip = (pod: Pod): string => pod.ips[family.key === 'ipv4' ? 0 : 1] ?? ''
  const party = ({ pod, enrolled }: MeshPod): Party => ({ name: pod.name, enrolled, ip: ip(pod) })
  const dialled = endpoint(ip(server.pod), appPort)
  const attempt = { mode, dialled, client: party(client), server: party(server), proxyIp: ip(ztunnelPod) }
  const seenBefore = proxies.map((proxy) => proxy.connections().length)
  const result = await httpGet(client.pod, ip(server.pod), family.options)
  const seen = proxies.flatMap((proxy, i) => proxy.connections().slice(seenBefore[i]))
  return {
    chain,
    family: family.name,
    ...attempt,
    outcome: outcomeOf(result, seen),
    expected: expected(attempt),
    note: noteOf(attempt),
  }
}

/** By the test client inside the container. */
async function httpGet(from: Pod, ip: string, options: readonly string[]): Promise<ConnectResult> {
  const command = ['/bin/sock', 'connect', ip, String(appPort), '--http', '--timeout', '5000', ...options]
  const { stdout, stderr } = await from.exec(command)
  const [result] = parseLines<ConnectResult>(stdout)
  if (!result) throw new Error(`sock connect in pod ${from.name} reported nothing: ${stderr}`)
  return result
}

function outcomeOf(
  { ok, error = '', local, peer, reply }: ConnectResult,
  seen: readonly ProxyConnection[],
): Outcome {
  // A proxy writes its line when it has dialled: the next one may have written its own by then.
  const hops = seen.toSorted((a, b) => Number(b.peer === local) - Number(a.peer === local))
  return {
    connectedTo: ok ? (peer ?? '') : error,
    path: [...hops.map(({ listener }) => `ztunnel:${listener}`), ...(reply ? [reply.server] : [])],
    originals: hops.map(({ original }) => original),
    source: reply && ipOf(reply.peer),
  }
}
