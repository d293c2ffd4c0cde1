// SPDX-License-Identifier: Apache-2.0
/** The image of the agent, without a registry: what the Dockerfile would make of this executable. */
import { globSync, mkdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { snapshotter } from '../support/containerd.ts'
import { run } from '../support/exec.ts'
import type { Node } from '../support/node.ts'

export const agentImage = 'example.test/ambridge:1'

const imageScript = fileURLToPath(new URL('../../installer/image.sh', import.meta.url))
const archiveScript = fileURLToPath(new URL('../support/runtime/mkimage.sh', import.meta.url))

/** Give it to the node's containerd. */
export async function importAgentImage(node: Node): Promise<void> {
  const files = `${node.dir}/agent-image`
  mkdirSync(files)
  await run(imageScript, [files])
  const own = globSync(`${files}/{*,.*/*}`)
  const extras = [
    ...own.map((path) => `${path}=/usr/local/bin${path.slice(files.length)}`),
    ...(await librariesOf(own)).map((path) => `${path}=${path}`),
  ]
  const archive = `${files}.tar`
  await run(archiveScript, [archive, agentImage, ...extras], { timeoutMs: 120_000 })
  const format = ['--snapshotter', await snapshotter(node.dir)]
  const args = ['-a', node.sock, '-n', 'k8s.io', 'images', 'import', ...format, archive]
  await run('ctr', args, { timeoutMs: 120_000 })
}

/** What the machine's loader finds for them, and the loader. */
async function librariesOf(files: readonly string[]): Promise<string[]> {
  const elf = files.filter((path) => /\/ambridge$|\.(node|so)$/.test(path))
  const texts = await Promise.all(elf.map((path) => run('ldd', [path])))
  const paths = texts.join('').matchAll(/(?:=> |^\s*)(\/\S+) \(0x/gm)
  return [...new Set([...paths].flatMap(([, path]) => path ?? []))]
}
