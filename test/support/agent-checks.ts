// SPDX-License-Identifier: Apache-2.0
/** What tests of the agent ask and do, again and again. */
import { expect } from 'vitest'
import type { Agent } from './agent.ts'
import { type AgentMesh, dataplane, type MeshPod } from './agent-mesh.ts'
import { waitFor } from './exec.ts'
import { endpoint } from './mesh.ts'
import type { LanHost } from './netns.ts'
import { type ConnectResult, connect } from './sock.ts'
import type { ZtunnelStandin } from './standin.ts'

/** By what the server sees, which listens on port 8080 there: the proxy's socket has a port of its own. */
export async function isCaptured(pod: MeshPod, far: LanHost): Promise<boolean> {
  const result = await connect(pod.at, far.ipv4, 8080)
  expect(result, JSON.stringify(result)).toMatchObject({ ok: true, peer: endpoint(far.ipv4, 8080) })
  return result.reply?.peer !== result.local
}

/** Captured, and nobody takes it. */
export async function isRefused(pod: MeshPod, far: LanHost): Promise<boolean> {
  const { ok, error } = await connect(pod.at, far.ipv4, 8080)
  return !ok && error === 'ECONNREFUSED'
}

/** `null` removes one. */
export function relabel(
  { api }: AgentMesh,
  pod: { readonly namespace: string; readonly name: string },
  labels: Readonly<Record<string, string | null>>,
): void {
  api.pods.update({ namespace: pod.namespace, name: pod.name }, { metadata: { labels } })
}

export const noLabel = { [dataplane]: null }

export function annotated(pod: MeshPod, value: string | undefined): Promise<true> {
  return waitFor(`annotation ${value}`, () => pod.redirection() === value)
}

export const isDel = (pod: MeshPod) => (event: { what: string; uid: string | null }) =>
  event.what === 'del' && event.uid === pod.uid

/** Uids that this ztunnel serves now. */
export function servedBy(ztunnel: ZtunnelStandin): string[] {
  const served = new Set<string>()
  for (const { what, uid, error } of ztunnel.zdsEvents()) {
    if (uid === null) continue
    if (what === 'add' && error === '') served.add(uid)
    if (what === 'del' || what === 'stopped') served.delete(uid)
  }
  return [...served]
}

/** Of the current process: kind → count. */
export async function repairs(agent: Agent): Promise<Record<string, number>> {
  const { text } = await agent.get('/metrics')
  const found = text.matchAll(/^ambridge_repairs_total\{kind="([^"]+)"\} (\d+)$/gm)
  return Object.fromEntries([...found].map(([, kind = '', count]) => [kind, Number(count)]))
}

/** What the plugin prints when it fails. */
export function errorOf({ output }: { readonly output: unknown }): {
  code: number
  msg: string
  details: string
} {
  return output as { code: number; msg: string; details: string }
}

/** One connection after the other, until the returned function is called; it gives what came of them. */
export function dialUntilStopped(pod: MeshPod, far: LanHost) {
  let stopped = false
  const seen = { ok: 0, refused: [] as ConnectResult[], uncaptured: [] as ConnectResult[] }
  const dialling = (async () => {
    while (!stopped) {
      const result = await connect(pod.at, far.ipv4, 8080)
      if (!result.ok) seen.refused.push(result)
      else if (result.reply?.peer === result.local) seen.uncaptured.push(result)
      else seen.ok++
    }
  })()
  return async () => {
    stopped = true
    await dialling
    expect(seen.ok + seen.refused.length).toBeGreaterThan(0)
    return seen
  }
}
