// SPDX-License-Identifier: Apache-2.0
/** conf/manifests/ambridge.yaml, changed as its user would: another image, more options of the agent. */
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseAllDocuments } from 'yaml'
import type { KubeObject } from './kubectl.ts'

export const agentNamespace = 'istio-system'
export const agentLabels = 'k8s-app=istio-cni-node'

const file = fileURLToPath(new URL('../../conf/manifests/ambridge.yaml', import.meta.url))

interface AgentContainer {
  image: string
  args: string[]
}

export interface DaemonSet extends KubeObject {
  spec: { template: { spec: { containers: AgentContainer[] } } }
}

export function manifest(): KubeObject[] {
  return parseAllDocuments(readFileSync(file, 'utf8')).map((document) => document.toJS() as KubeObject)
}

export function manifestWith(image: string, args: readonly string[]): KubeObject[] {
  const objects = manifest()
  for (const container of objects.filter(isDaemonSet).flatMap((each) => each.spec.template.spec.containers)) {
    container.image = image
    container.args.push(...args)
  }
  return objects
}

function isDaemonSet(object: KubeObject): object is DaemonSet {
  return object.kind === 'DaemonSet'
}
