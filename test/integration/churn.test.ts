// SPDX-License-Identifier: Apache-2.0
/** Many pods come and go at once on a real containerd; nothing of them stays. */
import { mkdirSync } from 'node:fs'
import { basename } from 'node:path'
import { expect, test } from 'vitest'
import type { Status } from '../../installer/programs/status.ts'
import { enrolling, MeshNode } from '../demo/mesh-node.ts'
import { cgroup2Root } from '../support/cgroup.ts'
import type { Node } from '../support/node.ts'
import { sandboxConfig } from '../support/pods.ts'
import { removeResource } from '../support/runtime/resource.ts'

const pins = '/sys/fs/bpf/ambridge'
const podCount = 100
const atOnce = 20

/** They hold sockets, and what they hold goes with the socket. */
const socketMaps = ['listeners', 'sock_addrs', 'dns_sockets']

test(`${podCount} pods, ${atOnce} at a time: each is enrolled, and none leaves a map entry, a pin or a link`, {
  timeout: 180_000,
}, async () => {
  await using mesh = await MeshNode.start('bridge')
  await mesh.install('ambient')
  await mesh.load()
  const before = await state(mesh)
  expect(before.links).not.toEqual([])
  const start = performance.now()
  const numbers = Array.from({ length: podCount }, (_, i) => i)
  const worker = async (): Promise<void> => {
    for (let i = numbers.pop(); i !== undefined; i = numbers.pop()) await comeAndGo(mesh, `churn-${i}`)
  }
  await Promise.all(Array.from({ length: atOnce }, worker))
  const seconds = (performance.now() - start) / 1000
  process.stderr.write(`${podCount} pods, ${atOnce} at a time: ${seconds.toFixed(1)} s\n`)

  expect(await state(mesh)).toEqual(before)
  expect(before).toMatchObject({ pods: [], entries: { pods: 0, pod_addrs: 0, attachments: 0, counters: 0 } })
})

/** A sandbox without containers, as is enough for ADD and DEL. */
async function comeAndGo(mesh: MeshNode, name: string): Promise<void> {
  const { cri } = mesh.node
  const config = sandboxConfig(mesh.node, { name, annotations: enrolling[0] })
  mkdirSync(config.log_directory, { recursive: true })
  mkdirSync(cgroup2Root() + config.linux.cgroup_parent, { recursive: true })
  const id = await cri.RunPodSandbox({ config })
  expect(podIn(await mesh.status(), name)).toMatchObject({ containerId: id.pod_sandbox_id, alive: true })
  await cri.StopPodSandbox(id)
  expect(podIn(await mesh.status(), name)).toBeUndefined()
  await cri.RemovePodSandbox(id)
  await removeResource({ kind: 'cgroup', path: config.linux.cgroup_parent })
}

function podIn({ pods }: Status, name: string): Status['pods'][number] | undefined {
  return pods.find((pod) => pod.name === name)
}

/** All that is kept beyond processes. A link lives by its pin: the plugin has ended. */
async function state(mesh: MeshNode) {
  const { pods, links } = await mesh.status()
  const found = await mesh.node.inNode('find', [pins])
  const paths = found.stdout.split('\n').filter(Boolean).sort()
  return { pods, links, paths, entries: await countEntries(mesh.node, paths) }
}

/** Map name -> number of its entries. */
async function countEntries(node: Node, paths: readonly string[]): Promise<Record<string, number>> {
  const names = paths.filter((path) => path.startsWith(`${pins}/maps/`)).map((path) => basename(path))
  const counts: Record<string, number> = {}
  for (const name of names.filter((each) => !socketMaps.includes(each))) {
    const { stdout, stderr } = await node.inNode('bpftool', [
      ...['-j', 'map', 'dump', 'pinned'],
      `${pins}/maps/${name}`,
    ])
    const dump: unknown = JSON.parse(stdout)
    if (!Array.isArray(dump)) throw new Error(`bpftool map dump ${name}: ${stdout}${stderr}`)
    counts[name] = dump.length
  }
  return counts
}
