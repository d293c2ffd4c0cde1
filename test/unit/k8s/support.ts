// SPDX-License-Identifier: Apache-2.0
import { setTimeout as sleep } from 'node:timers/promises'
import { Cluster, type ClusterOptions } from '../../../src/k8s/cluster.ts'
import { createLogger, type Entry } from '../../../src/log.ts'
import type { ApiServer } from '../../support/api-server.ts'

export const web = { namespace: 'shop', name: 'web' }

export interface Followed extends AsyncDisposable {
  readonly cluster: Cluster
  /** `+shop/web`, `~shop/web`, `-shop/web`, `+shop`: what the handlers were called for. */
  readonly changes: string[]
  readonly log: Entry[]
}

/** A cluster that reacts sooner than in earnest. Not started. */
export function follow(
  { kubeconfig }: Pick<ApiServer, 'kubeconfig'>,
  options: Partial<ClusterOptions> = {},
): Followed {
  const changes: string[] = []
  const log: Entry[] = []
  const note = (now: string | undefined, before: string | undefined) =>
    changes.push(`${now === undefined ? '-' : before === undefined ? '+' : '~'}${now ?? before}`)
  const cluster = Cluster.connect({
    kubeconfig,
    nodeName: 'node1',
    log: createLogger('debug', { write: (entry) => log.push(entry), flush: async () => undefined }),
    onPod: (now, before) =>
      note(now && `${now.namespace}/${now.name}`, before && `${before.namespace}/${before.name}`),
    onNamespace: (now, before) => note(now?.name, before?.name),
    ...options,
    timing: { readMs: 300, minPauseMs: 10, maxPauseMs: 200, steadyMs: 100, ...options.timing },
  })
  return { cluster, changes, log, [Symbol.asyncDispose]: () => cluster[Symbol.asyncDispose]() }
}

/** A cluster that has its watches open, with one pod. */
export async function followOne(api: ApiServer, options: Partial<ClusterOptions> = {}): Promise<Followed> {
  api.pods.create(web)
  const followed = follow(api, options)
  await followed.cluster.start()
  await until(() => api.watches.length === 2)
  return followed
}

/** Looks again and again, for as long as a test may take. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await sleep(5)
}
