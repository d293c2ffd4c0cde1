// SPDX-License-Identifier: Apache-2.0
import { Counter, Gauge, Registry } from 'prom-client'

/** What `/metrics` tells. */
export interface Metrics {
  readonly registry: Registry
  readonly decisions: Counter<'result'>
  readonly activations: Counter<'result'>
  readonly repairs: Counter<'kind'>
  readonly failures: Counter<'operation'>
  readonly ztunnels: Gauge
}

/** Read when somebody asks. */
export interface MetricSources {
  directReads(): number
  /** By state. */
  pods(): Readonly<Record<'served' | 'pending', number>>
}

export function createMetrics({ directReads, pods }: MetricSources): Metrics {
  const registry = new Registry()
  const registers = [registry]
  new Gauge({
    name: 'ambridge_api_direct_reads_total',
    help: 'Reads of the API server because the cache did not know a pod or namespace',
    registers,
    collect() {
      this.set(directReads())
    },
  })
  new Gauge({
    name: 'ambridge_pods',
    help: 'Pods of this node that are to be in the mesh: served by ztunnel, or pending',
    labelNames: ['state'],
    registers,
    collect() {
      for (const [state, count] of Object.entries(pods())) this.set({ state }, count)
    },
  })
  return {
    registry,
    decisions: new Counter({
      name: 'ambridge_decisions_total',
      help: 'Questions of the plugin whether a pod is enrolled',
      labelNames: ['result'],
      registers,
    }),
    activations: new Counter({
      name: 'ambridge_activations_total',
      help: 'Pods that the plugin handed over for ztunnel',
      labelNames: ['result'],
      registers,
    }),
    repairs: new Counter({
      name: 'ambridge_repairs_total',
      help: 'What was not as it should be on this node, and was put right',
      labelNames: ['kind'],
      registers,
    }),
    failures: new Counter({
      name: 'ambridge_failures_total',
      help: 'What did not work, and is tried again',
      labelNames: ['operation'],
      registers,
    }),
    ztunnels: new Gauge({ name: 'ambridge_ztunnel_connections', help: 'Connected ztunnels', registers }),
  }
}
