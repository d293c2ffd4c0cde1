// SPDX-License-Identifier: Apache-2.0
/** Original source: the app is shown the client that its proxy speaks for, by accept() and by getpeername(). */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { endpoint, families, ipOf, Mesh, portOf } from '../support/mesh.ts'
import type { LanHost } from '../support/netns.ts'
import { type ConnectResult, connect, type ServerView, SockClient } from '../support/sock.ts'

let mesh: Mesh
let pod: LanHost
let client: LanHost
let enrolledClient: LanHost

beforeAll(async () => {
  mesh = await Mesh.create({ hosts: 3 })
  pod = mesh.host(0)
  client = mesh.host(1)
  enrolledClient = mesh.host(2)
  await mesh.startStandin()
  await mesh.enroll(pod)
  await mesh.enroll(enrolledClient)
  await mesh.serve(pod, 'dual stack', [8080])
  await mesh.serve(pod, 'IPv4', [8084], ['--bind', '0.0.0.0'])
  await mesh.serve(pod, 'IPv6', [8086], ['--v6only'])
  await mesh.serve(pod, 'one address', [8088], ['--bind', endpoint(pod.ipv4, 0)])
})
afterAll(() => mesh?.dispose())

const listeners = [
  { listener: 'dual stack', port: 8080, key: 'ipv4', form: 'v4-mapped' },
  { listener: 'dual stack', port: 8080, key: 'ipv6', form: 'inet6' },
  { listener: 'IPv4', port: 8084, key: 'ipv4', form: 'inet' },
  { listener: 'IPv6', port: 8086, key: 'ipv6', form: 'inet6' },
  { listener: 'one address', port: 8088, key: 'ipv4', form: 'inet' },
] as const

function expectShown(result: ConnectResult, expected: Partial<ServerView>, client: string): void {
  expect(result).toMatchObject({ ok: true, reply: expected })
  expect(ipOf(result.reply?.peer)).toBe(client)
  expect(result.reply?.getpeername).toBe(result.reply?.peer)
  expect(portOf(result.reply?.peer)).toBeGreaterThan(0)
}

describe.for(listeners)('a listener for $listener, an $key client', ({ listener, port, key, form }) => {
  const expected = (): Partial<ServerView> => ({
    server: listener,
    family: form,
    local: endpoint(pod[key], port),
  })

  test('is shown a client that came through 15006', async () => {
    expectShown(await connect(mesh.at(client), pod[key], port), expected(), client[key])
  })

  test('is shown a client that came through 15008', async () => {
    const to = ['--hbone', endpoint(pod[key], port)]
    expectShown(await connect(mesh.at(client), pod[key], 15008, to), expected(), client[key])
  })

  test('is shown an enrolled client, which came through two proxies', async () => {
    const result = await connect(mesh.at(enrolledClient), pod[key], port)
    expectShown(result, expected(), enrolledClient[key])
  })

  test('is shown the port, too, when the proxy asks for one', async () => {
    const source = endpoint(client[key], 4321)
    const where = { netns: pod.netns, cgroupDir: mesh.proxy.dir }
    const result = await connect(where, pod[key], port, ['--transparent', '--bind', source])
    expect(result).toMatchObject({ ok: true, reply: { peer: source, getpeername: source } })
    expect(result.reply).toMatchObject(expected())
  })
})

test.for(families)(
  'two clients at once over $name are not taken for each other',
  async ({ key, options }) => {
    const holding = [...options, '--hold', '300']
    await using first = await SockClient.start(mesh.at(client), pod[key], 8080, holding)
    await using second = await SockClient.start(mesh.at(enrolledClient), pod[key], 8080, holding)
    expect(ipOf((await first.result()).reply?.peer)).toBe(client[key])
    expect(ipOf((await second.result()).reply?.peer)).toBe(enrolledClient[key])
  },
)

test('only the proxy can speak for another: the app cannot bind to a client address', async () => {
  const source = endpoint(client.ipv4, 4321)
  const result = await connect(mesh.at(pod), pod.ipv4, 8080, ['--bind', source])
  expect(result).toMatchObject({ ok: false, error: 'EADDRNOTAVAIL', at: 'bind' })
})

test('a proxy that binds to an address of the pod, or to loopback, has it', async () => {
  const where = { netns: pod.netns, cgroupDir: mesh.proxy.dir }
  for (const source of [endpoint(pod.ipv4, 4322), endpoint('127.0.0.1', 4322)]) {
    const result = await connect(where, pod.ipv4, 8080, ['--reuseaddr', '--bind', source])
    expect(result).toMatchObject({ ok: true, local: source, reply: { peer: source } })
  }
})
