// SPDX-License-Identifier: Apache-2.0
/** Mode sidecar: redirection is there when ADD returns, before any container runs; and what ADD refuses. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { app, enrolled, path, sidecarOptions, traffic } from '../sidecar/pod.ts'
import { validate } from '../sidecar/sidecar.ts'
import { tryCni } from '../support/ambridge.ts'
import { Mesh } from '../support/mesh.ts'
import type { LanHost } from '../support/netns.ts'
import { SockServer } from '../support/sock.ts'

let mesh: Mesh
let pod: LanHost
let remote: LanHost

beforeAll(async () => {
  mesh = await Mesh.create({ load: ['--sidecar'] })
  pod = mesh.host(0)
  remote = mesh.host(1)
  await SockServer.start({ ...mesh.at(remote), ports: [9090, 15020], name: 'remote' })
  await SockServer.start({ ...mesh.at(pod), ports: [8080, 15021], name: 'app' })
})
afterAll(async () => {
  await mesh?.dispose()
})

function outbound(address: string, port: number): Promise<string> {
  return path(mesh, pod, address, port, app)
}

function inbound(port: number, key: 'ipv4' | 'ipv6' = 'ipv4'): Promise<string> {
  return path(mesh, remote, pod[key], port)
}

test('what is captured is refused, what is excluded works', async () => {
  await using _ = await enrolled(mesh, pod)
  expect(await outbound(remote.ipv4, 9090)).toBe('ECONNREFUSED')
  expect(await outbound(remote.ipv6, 9090)).toBe('ECONNREFUSED')
  expect(await inbound(8080)).toBe('ECONNREFUSED')
  expect(await inbound(8080, 'ipv6')).toBe('ECONNREFUSED')
  expect(await inbound(15021)).toBe('direct')
  expect(await outbound(remote.ipv4, 15020)).toBe('direct')
})

test.for([4, 6] as const)('istio-validation is content with IPv%i', async (family) => {
  await using _ = await enrolled(mesh, pod)
  const { stdout, stderr, code } = await validate(mesh.at(pod), family)
  expect({ stdout, stderr, code }).toEqual({
    stdout: '[{"listener": 15006, "original": 15002}]\n',
    stderr: '',
    code: 0,
  })
})

test('istio-validation finds out that a pod is not enrolled', async () => {
  expect((await validate(mesh.at(pod), 4)).code).toBe(1)
})

const refused: [string, string][] = [
  [`${traffic}/excludeInterfaces`, 'net1'],
  [`${traffic}/kubevirtInterfaces`, 'net1'],
  ['istio.io/reroute-virtual-interfaces', 'net1'],
  ['sidecar.istio.io/interceptionMode', 'TPROXY'],
  [`${traffic}/excludeOutboundIPRanges`, '*'],
]

test.for(refused)(
  '%s: "%s" cannot be kept, and the pod is refused by that name',
  async ([annotation, value]) => {
    const call = {
      containerId: 'refused',
      netns: pod.netns.path,
      ifname: 'eth0',
      conf: mesh.conf(sidecarOptions({ annotations: { [annotation]: value } })),
    }
    const { code, output } = await tryCni('ADD', call)
    expect(code).toBe(1)
    expect(JSON.stringify(output)).toContain(annotation)
    expect((await mesh.status()).pods).toEqual([])
  },
)
