// SPDX-License-Identifier: Apache-2.0
/** How long BPF programs run, as the kernel counts it (kernel.bpf_stats_enabled). The two clock reads of each run are part of it. */
import { readFileSync, writeFileSync } from 'node:fs'
import { registerCleanup } from '../support/cleanup.ts'
import { run } from '../support/exec.ts'
import type { Step } from './stats.ts'

export interface RunStats {
  readonly ns: number
  readonly runs: number
}

const switchFile = '/proc/sys/kernel/bpf_stats_enabled'

/** Until disposed. It slows every program of the machine a little. */
export function enableStats(): AsyncDisposable {
  const before = readFileSync(switchFile, 'utf8')
  const restore = registerCleanup(() => writeFileSync(switchFile, before))
  writeFileSync(switchFile, '1')
  return { [Symbol.asyncDispose]: restore }
}

/** Nanoseconds per run of programs, by the name that `ids` gives to the program id, while `work` is done. */
export function timing(ids: Readonly<Record<string, number>>, work: () => Promise<unknown>): Step {
  return async () => {
    const before = await readStats()
    await work()
    const after = await readStats()
    const perRun = Object.entries(ids).map(([name, id]): [string, number] => [
      name,
      nsPerRun(name, before.get(id), after.get(id)),
    ])
    return Object.fromEntries(perRun)
  }
}

/** Throws when the program has not run in between. */
export function nsPerRun(name: string, before: RunStats | undefined, after: RunStats | undefined): number {
  const runs = (after?.runs ?? 0) - (before?.runs ?? 0)
  if (runs <= 0) throw new Error(`${name}: the program has not run`)
  return ((after?.ns ?? 0) - (before?.ns ?? 0)) / runs
}

/** By program id. */
async function readStats(): Promise<Map<number, RunStats>> {
  const programs = JSON.parse(await run('bpftool', ['-j', 'prog', 'show'])) as {
    id: number
    run_time_ns?: number
    run_cnt?: number
  }[]
  return new Map(
    programs.map(({ id, run_time_ns: ns = 0, run_cnt: runs = 0 }): [number, RunStats] => [id, { ns, runs }]),
  )
}
