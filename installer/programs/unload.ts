// SPDX-License-Identifier: Apache-2.0
import { existsSync, readdirSync, rmdirSync, rmSync } from 'node:fs'
import { join } from 'node:path/posix'
import { pinPaths } from '../../src/linux/bpffs.ts'
import { DirLock } from '../../src/linux/lock.ts'
import { collectSteps, type Step } from './report.ts'

/** Removes every link, program and map, and the directories. Idempotent. Links first: no program runs on maps that are gone. */
export function unload(bpffs: string): Step[] {
  const { steps, report } = collectSteps()
  using lock = DirLock.take(bpffs)
  if (lock === undefined) return steps
  const { links, netns, guard, progs, maps } = pinPaths(bpffs)
  for (const [kind, dir] of [
    ['link', links],
    ['link', netns],
    ['link', guard],
    ['program', progs],
    ['map', maps],
  ] as const) {
    if (!existsSync(dir)) continue
    for (const name of readdirSync(dir)) {
      rmSync(join(dir, name))
      report(kind, name, 'removed')
    }
    rmdirSync(dir)
  }
  rmdirSync(bpffs)
  report('directory', bpffs, 'removed')
  return steps
}
