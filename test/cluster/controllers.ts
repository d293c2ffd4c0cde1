// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { cgroup2Root } from '../support/cgroup.ts'
import { hierarchies } from '../support/runtime/resource.ts'

/**
 * The kubelet wants every cgroup v2 controller that the machine has in the cgroup above its pods. Gives a function that takes back what
 * the machine did not have; controllers that others use by then stay.
 */
export function enableControllers(): () => void {
  const root = cgroup2Root()
  const words = (file: string): string[] => readFileSync(`${root}/${file}`, 'utf8').trim().split(/\s+/)
  const enabled = words('cgroup.subtree_control')
  const missing = words('cgroup.controllers').filter((name) => name !== '' && !enabled.includes(name))
  const write = (sign: '+' | '-'): void => {
    if (missing.length === 0) return
    writeFileSync(`${root}/cgroup.subtree_control`, missing.map((name) => sign + name).join(' '))
  }
  write('+')
  return () => {
    try {
      write('-')
    } catch (err) {
      if ((err as NodeJS.ErrnoException).code !== 'EBUSY') throw err
    }
  }
}

/** The kubelet wants the cgroup above its pods in every hierarchy. They go with the node's, which is owned. */
export function makeInAllHierarchies(path: string): void {
  for (const root of hierarchies()) mkdirSync(root + path, { recursive: true })
}
