// SPDX-License-Identifier: Apache-2.0
/** How long a pod that is not in the mesh takes to start, with and without the plugin in the chain. */
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { bridge, type Conflist } from '../support/conflists.ts'
import { waitFor } from '../support/exec.ts'
import { agentNamespace } from './manifest.ts'
import { type MeshCluster, patient } from './mesh.ts'
import { pod } from './workloads.ts'

export interface StartTimes {
  /** Medians, ms, from before `kubectl apply` to the first instruction of the container; by /proc/uptime: to 10 ms. */
  readonly withPlugin: number
  readonly without: number
}

/** Interleaved. The agent keeps to its conflist from now on, so that one before it by name can hide it. */
export async function measureStarts(mesh: MeshCluster, rounds: number): Promise<StartTimes> {
  const patch = [
    { op: 'add', path: '/spec/template/spec/containers/0/args/-', value: '--conf-name=10-net.conflist' },
  ]
  const daemonSet = ['daemonset', 'ambridge', '-n', agentNamespace]
  await mesh.kubectl.run(['patch', ...daemonSet, '--type=json', '-p', JSON.stringify(patch)])
  await mesh.kubectl.run(['rollout', 'status', ...daemonSet, '--timeout=60s'], { timeoutMs: 70_000 })
  const times: { withPlugin: number[]; without: number[] } = { withPlugin: [], without: [] }
  for (let round = 0; round < rounds; round++) {
    await hidePlugin(mesh)
    times.without.push(await startMs(mesh, `without-${round}`))
    await showPlugin(mesh)
    times.withPlugin.push(await startMs(mesh, `with-${round}`))
  }
  return { withPlugin: median(times.withPlugin), without: median(times.without) }
}

async function hidePlugin(mesh: MeshCluster): Promise<void> {
  const { node } = mesh.cluster
  writeFileSync(`${node.confDir}/.new`, JSON.stringify(bridge(node)))
  renameSync(`${node.confDir}/.new`, `${node.confDir}/05-without.conflist`)
  await loaded(mesh, ['bridge'])
}

async function showPlugin(mesh: MeshCluster): Promise<void> {
  rmSync(`${mesh.cluster.node.confDir}/05-without.conflist`)
  await loaded(mesh, ['bridge', 'ambridge'])
}

async function loaded(mesh: MeshCluster, types: readonly string[]): Promise<void> {
  const isLoaded = async (): Promise<boolean> => {
    const conflist = (await mesh.cluster.node.loadedConflist()) as Conflist | undefined
    return conflist?.plugins.map(({ type }) => type).join() === types.join()
  }
  await waitFor(`the chain ${types}`, isLoaded, patient)
}

async function startMs(mesh: MeshCluster, name: string): Promise<number> {
  const command = ['/bin/sh', '-c', 'cat /proc/uptime; exec sleep 1000000']
  const start = uptimeMs(readFileSync('/proc/uptime', 'utf8'))
  await mesh.kubectl.apply(pod({ name, command }))
  const log = async (): Promise<string | false> => (await mesh.kubectl.try(['logs', name])).stdout || false
  const end = uptimeMs(await waitFor(`the log of ${name}`, log, patient))
  await mesh.kubectl.delete({ kind: 'pod', name })
  return end - start
}

function uptimeMs(text: string): number {
  return Number(text.split(' ')[0]) * 1000
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const [low = 0, high = low] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]]
  return (low + high) / 2
}
