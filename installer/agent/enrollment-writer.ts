// SPDX-License-Identifier: Apache-2.0
/** Keeps on disk what the plugin goes by while no agent answers. */
import { writeEnrollment } from '../../src/agent-api/enrollment-file.ts'
import type { PodView } from '../../src/k8s/view.ts'
import { decidePod } from './decisions.ts'
import { type AgentNode, namespaceOf, uidsOf } from './node.ts'
import type { AgentOptions } from './options.ts'

/** Pods come and go in bursts. */
const delayMs = 200

type Options = Pick<AgentOptions, 'enrollmentFile' | 'nodeName'>

export class EnrollmentWriter implements Disposable {
  readonly #node: AgentNode
  readonly #options: Options
  #timer: NodeJS.Timeout | undefined
  #problem: string | undefined

  constructor(node: AgentNode, options: Options) {
    this.#node = node
    this.#options = options
  }

  changed(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      this.#write()
    }, delayMs)
  }

  [Symbol.dispose](): void {
    if (this.#timer === undefined) return
    clearTimeout(this.#timer)
    this.#write()
  }

  #write(): void {
    const { cluster, rules, log } = this.#node
    if (!cluster.synced) return
    const { enrollmentFile, nodeName } = this.#options
    try {
      writeEnrollment(enrollmentFile, {
        node: nodeName,
        selectors: rules.selectors,
        excludeNamespaces: rules.policy.excludeNamespaces,
        sidecar: rules.sidecar,
        namespaces: Object.fromEntries(cluster.namespaces().map(({ name, labels }) => [name, labels])),
        pods: Object.fromEntries(cluster.pods().flatMap((pod) => this.#fact(pod))),
      })
      this.#problem = undefined
    } catch (err) {
      const { message } = err as Error
      if (this.#problem !== message)
        log.warn('enrollment file not written', { file: enrollmentFile, error: err })
      this.#problem = message
    }
  }

  #fact(pod: PodView): [string, { uids: string[]; enroll: boolean; reason: string }][] {
    const namespace = namespaceOf(this.#node, pod)
    if (namespace === undefined) return []
    return [[`${pod.namespace}/${pod.name}`, { uids: uidsOf(pod), ...this.#decision(pod, namespace) }]]
  }

  #decision(pod: PodView, namespace: NonNullable<ReturnType<typeof namespaceOf>>) {
    try {
      const { enroll, reason } = decidePod(pod, namespace, this.#node.rules)
      return { enroll, reason }
    } catch (err) {
      return { enroll: true, reason: (err as Error).message }
    }
  }
}
