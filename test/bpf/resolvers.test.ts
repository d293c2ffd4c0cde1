// SPDX-License-Identifier: Apache-2.0
/** DNS capture as the resolvers that applications use meet it: each accepts a reply only from a server that it asked. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { ExecResult } from '../support/exec.ts'
import { waitFor } from '../support/exec.ts'
import { Mesh } from '../support/mesh.ts'
import type { LanHost } from '../support/netns.ts'
import { DnsServer, muslResolverPath, resolveWith } from '../support/resolv.ts'
import { queryDns } from '../support/sock.ts'
import type { DnsQuery, ZtunnelStandin } from '../support/standin.ts'

const ipv4Servers = ['10.250.0.2', '10.250.0.151', '10.250.0.152']
const ipv6Servers = ['fd10:250::2', 'fd10:250::151']
const mixedServers = ['fd10:250::2', '10.250.0.2', '10.250.0.151']
const [first = '', second = ''] = ipv4Servers
const remoteAnswers = ['203.0.113.53', '2001:db8:bad::53'] as const
/** The proxy's. */
const answers = ['192.0.2.53', '2001:db8::53']

let mesh: Mesh
let pod: LanHost
let standin: ZtunnelStandin
let remote: DnsServer
let musl: string
let asks = 0

beforeAll(async () => {
  musl = await muslResolverPath()
  mesh = await Mesh.create()
  pod = mesh.host(0)
  const { netns } = mesh.host(1)
  const more = [...ipv4Servers.slice(1), ...ipv6Servers.slice(1)]
  await netns.ip(more.map((address) => `addr add ${address} dev eth0`))
  standin = await mesh.startStandin()
  remote = await DnsServer.start({ netns }, ...remoteAnswers)
  await mesh.enroll(pod)
})
afterAll(async () => {
  await remote?.stop()
  await mesh?.dispose()
})

interface Resolved extends ExecResult {
  /** What the proxy was asked. */
  readonly queries: () => DnsQuery[]
  readonly isRemoteAsked: boolean
}

/** Run a resolver in the pod; NAME in its command line becomes a name of its own. */
async function resolve(
  servers: readonly string[],
  command: readonly string[],
  prefix = '',
): Promise<Resolved> {
  const name = `${prefix}resolver${++asks}.test`
  const line = command.map((word) => word.replace('NAME', name))
  const result = await resolveWith(mesh.at(pod), servers, line)
  const queries = () => standin.dnsQueries().filter((query) => query.name === name)
  return { ...result, queries, isRemoteAsked: remote.queries().includes(name) }
}

/** node's own resolver is c-ares. */
const cares = `
  const resolver = new (require('node:dns').promises.Resolver)({ timeout: 1000, tries: 2 })
  const [name, ...servers] = process.argv.slice(1)
  if (servers.length) resolver.setServers(servers)
  Promise.all([resolver.resolve4(name), resolver.resolve6(name)]).then((found) => console.log(found.flat().join('\\n')))
`
const node = [process.execPath, '-e', cares, 'NAME']
const resolvers = [
  { name: 'getaddrinfo() of glibc', command: () => ['getent', 'ahosts', 'NAME'] },
  { name: 'getaddrinfo() of musl, which asks all servers from one socket', command: () => [musl, 'NAME'] },
  { name: 'nslookup of busybox', command: () => ['busybox', 'nslookup', 'NAME'] },
  { name: 'dig', command: () => ['dig', '+short', '+tries=2', '+time=1', 'NAME', 'A', 'NAME', 'AAAA'] },
  { name: 'nslookup of BIND', command: () => ['nslookup', '-timeout=1', 'NAME'] },
  { name: 'c-ares', command: () => node },
  { name: 'the lookup() of Node', command: () => [process.execPath, '-e', lookup, 'NAME'] },
]
const lookup = `require('node:dns').lookup(process.argv[1], { all: true }, (err, found) => console.log(err ?? found))`

describe.for([
  { family: 'IPv4', servers: ipv4Servers },
  { family: 'IPv6', servers: ipv6Servers },
  { family: 'IPv6 and IPv4', servers: mixedServers },
])('with $family servers', ({ servers }) => {
  test.for(resolvers)('the proxy answers $name', async ({ command }) => {
    const { stdout, stderr, queries, isRemoteAsked } = await resolve(servers, command())
    for (const answer of answers) expect(stdout + stderr).toContain(answer)
    expect(stdout).not.toContain(remoteAnswers[0])
    expect(isRemoteAsked).toBe(false)
    const types = () => new Set(queries().map(({ type }) => type))
    await waitFor('both questions at the proxy', () => types().has(1) && types().has(28))
  })
})

describe('dig', () => {
  const dig = ['dig', '+tries=1', '+time=1']

  test.for([
    { way: 'over UDP', options: ['+notcp'], transport: 'udp' },
    { way: 'over TCP', options: ['+tcp'], transport: 'tcp' },
    { way: 'from the pod address', options: ['-b', '10.250.0.1'], transport: 'udp' },
    { way: 'over TCP from the pod address', options: ['+tcp', '-b', '10.250.0.1'], transport: 'tcp' },
    { way: 'with cookies and EDNS turned off', options: ['+noedns'], transport: 'udp' },
  ])('is answered $way, as by the server that it names', async ({ options, transport }) => {
    const { stdout, queries } = await resolve([first], [...dig, ...options, `@${second}`, 'NAME'])
    expect(stdout).toMatch(/NOERROR/)
    expect(stdout).toContain(answers[0])
    expect(stdout).toContain(`SERVER: ${second}#53`)
    expect(stdout).not.toContain('reply from unexpected source')
    await waitFor('the question at the proxy', () => queries().some((query) => query.transport === transport))
  })

  test('learns that a name does not exist', async () => {
    const { stdout } = await resolve([first], [...dig, 'NAME'], 'nx.')
    expect(stdout).toMatch(/NXDOMAIN/)
  })
})

describe('a truncated reply is asked for again over TCP', () => {
  test.for([
    { name: 'glibc', command: ['getent', 'ahosts', 'NAME'] },
    { name: 'dig', command: ['dig', '+short', 'NAME', 'A', 'NAME', 'AAAA'] },
    { name: 'c-ares', command: node },
  ])('by $name', async ({ command }) => {
    const { stdout, queries, isRemoteAsked } = await resolve(ipv4Servers, command, 'tc.')
    for (const answer of answers) expect(stdout).toContain(answer)
    expect(isRemoteAsked).toBe(false)
    const transports = () => new Set(queries().map(({ transport }) => transport))
    await waitFor('both transports at the proxy', () => transports().size === 2)
  })

  test.for([first, 'fd10:250::2'])('as Go does, from a new socket for each try (%s)', async (server) => {
    const options = ['--connected', '--tcp-if-truncated', '--name', 'tc.go.test']
    const { replies, error } = await queryDns(mesh.at(pod), [server], options)
    expect(error).toBe('')
    const from = server.includes(':') ? `[${server}]:53` : `${server}:53`
    expect(replies).toMatchObject([
      { from, answer: null },
      { from, answer: answers[0] },
    ])
  })
})

test('c-ares asks the server of its own list, whatever resolv.conf says', async () => {
  const { stdout, isRemoteAsked } = await resolve(['192.0.2.1'], [...node, second])
  for (const answer of answers) expect(stdout).toContain(answer)
  expect(isRemoteAsked).toBe(false)
})
