// SPDX-License-Identifier: Apache-2.0
/** How long a real containerd takes to start a pod (RunPodSandbox), with ambridge last in its chain and without. */
import { mkdirSync } from 'node:fs'
import { enrolling, MeshNode } from '../demo/mesh-node.ts'
import { cgroup2Root } from '../support/cgroup.ts'
import { sandboxConfig } from '../support/pods.ts'
import { removeResource } from '../support/runtime/resource.ts'
import { budgetMs, compare, type Suite, takeTurns } from './stats.ts'

export const pods: Suite = {
  name: 'pods',
  run: async ({ runs }) => {
    await using ours = await MeshNode.start('bridge')
    await ours.install('ambient')
    await ours.load()
    await using reference = await MeshNode.start('bridge')
    const steps = [
      async () => ({ with: await startPod(ours) }),
      async () => ({ without: await startPod(reference) }),
    ]
    const samples = await takeTurns(steps, { runs, warmups: 2, budgetMs })
    const goal = { id: 'pods/run-sandbox', unit: 'ms', target: 1.15 }
    return [compare(goal, samples('with'), samples('without'))]
  },
}

let started = 0

/** Milliseconds of RunPodSandbox; the rest of the pod's life does not count. */
async function startPod({ node }: MeshNode): Promise<number> {
  const config = sandboxConfig(node, { name: `bench-${++started}`, annotations: enrolling[0] })
  mkdirSync(config.log_directory, { recursive: true })
  mkdirSync(cgroup2Root() + config.linux.cgroup_parent, { recursive: true })
  const begin = performance.now()
  const sandbox = await node.cri.RunPodSandbox({ config })
  const ms = performance.now() - begin
  await node.cri.StopPodSandbox(sandbox)
  await node.cri.RemovePodSandbox(sandbox)
  await removeResource({ kind: 'cgroup', path: config.linux.cgroup_parent })
  return ms
}
