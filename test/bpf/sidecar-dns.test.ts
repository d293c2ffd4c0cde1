// SPDX-License-Identifier: Apache-2.0
/** Mode sidecar: DNS goes to istio-agent. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { enrolled } from '../sidecar/pod.ts'
import { asProxy, Sidecar, startDnsServer } from '../sidecar/sidecar.ts'
import { tryRun } from '../support/exec.ts'
import { endpoint, Mesh } from '../support/mesh.ts'
import type { LanHost } from '../support/netns.ts'
import { type DnsReply, enter, parseLines, queryDns, toolPath } from '../support/sock.ts'

let mesh: Mesh
let pod: LanHost
let remote: LanHost
let envoy: Sidecar

const [agentAnswer, serverAnswer] = ['192.0.2.53', '198.51.100.53']
const loopback = ['127.0.0.1', '::1']

beforeAll(async () => {
  mesh = await Mesh.create({ load: ['--sidecar'] })
  pod = mesh.host(0)
  remote = mesh.host(1)
  const addresses = [remote.ipv4, remote.ipv6]
  await startDnsServer(mesh.at(remote), { port: 53, answer: serverAnswer, addresses })
  await startDnsServer(mesh.at(pod), {
    port: 15053,
    answer: agentAnswer,
    addresses: loopback,
    asProxy: true,
  })
  await using _ = await enrolled(mesh, pod)
  envoy = await Sidecar.start(mesh.at(pod))
})
afterAll(async () => {
  await envoy?.stop()
  await mesh?.dispose()
})

const transports = [
  { name: 'UDP', options: [] },
  { name: 'connected UDP', options: ['--connected'] },
  { name: 'TCP', options: ['--tcp'] },
]

/** The answer; and the reply has to come from the server that was asked. */
async function ask(server: string, options: readonly string[]): Promise<string | null | undefined> {
  const { replies, error } = await queryDns(
    mesh.at(pod),
    [endpoint(server, 53)],
    [...options, '--timeout', '2000'],
  )
  if (error === '') expect(replies).toMatchObject([{ from: endpoint(server, 53) }])
  return error === '' ? replies[0]?.answer : error
}

test.for(transports)(
  'rule 5: port 53 goes to the agent, whichever server is asked: $name',
  async ({ options }) => {
    await using _ = await enrolled(mesh, pod)
    for (const server of [remote.ipv4, remote.ipv6, '127.0.0.1', '127.0.0.53', '::1', pod.ipv4, pod.ipv6])
      expect([server, await ask(server, options)]).toEqual([server, agentAnswer])
  },
)

test.for(transports)("rule 3c: the proxy's own queries go to the server: $name", async ({ options }) => {
  await using _ = await enrolled(mesh, pod)
  for (const server of [remote.ipv4, remote.ipv6]) {
    const query = [await toolPath('sock'), 'udp', endpoint(server, 53), ...options]
    const [command = '', ...args] = enter(mesh.at(pod), asProxy(query))
    const [reply] = parseLines<DnsReply>((await tryRun(command, args)).stdout)
    expect(reply).toMatchObject({ from: endpoint(server, 53), answer: serverAnswer })
  }
})

test.for(transports)(
  'rule 1: with port 53 excluded, queries go to the server: $name',
  async ({ options }) => {
    await using _ = await enrolled(mesh, pod, { annotations: { excludeOutboundPorts: '53' } })
    expect(await ask(remote.ipv4, options)).toBe(serverAnswer)
  },
)

test.for(transports)('with DNS capture switched off, the server answers: $name', async ({ options }) => {
  await using _ = await enrolled(mesh, pod, { conf: { dnsCapture: false } })
  expect(await ask(remote.ipv4, options)).toBe(serverAnswer)
})
