// SPDX-License-Identifier: Apache-2.0
/** What a process of the kit has left on the machine: network namespaces, directories, cgroups, mounts and who is in them. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { hierarchies } from '../support/runtime/resource.ts'

export function leftoversOf(pid: number): string[] {
  const isOurs = new RegExp(`\\bambt${pid}(?!\\d)`)
  const below = (dir: string): string[] =>
    existsSync(dir)
      ? readdirSync(dir)
          .filter((name) => isOurs.test(name))
          .map((name) => `${dir}/${name}`)
      : []
  const processes = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
  const holding = processes.filter((each) =>
    ['cmdline', 'mountinfo', 'cgroup'].some((file) => isOurs.test(readProc(each, file))),
  )
  return [
    ...['/run/netns', tmpdir(), '/sys/fs/bpf', ...hierarchies()].flatMap(below),
    ...holding.map((each) => `process ${each}: ${readProc(each, 'cmdline').replaceAll('\0', ' ')}`),
  ]
}

/** Empty for a process that has ended. */
function readProc(pid: string, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8')
  } catch {
    return ''
  }
}
