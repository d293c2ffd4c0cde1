// SPDX-License-Identifier: Apache-2.0
import { closeSync, openSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path/posix'
import { attachToCgroup, openPin, pin, readLinkPin, updateLink } from '../../src/bpf/link.ts'
import { cgroupId } from '../../src/linux/cgroup.ts'
import { SystemError } from '../../src/native.ts'
import { RemedyError } from '../../src/remedy.ts'
import type { Hook } from './hooks.ts'
import type { Report } from './report.ts'

export interface WantedLink extends Hook {
  /** Directory of the cgroup. */
  readonly cgroup: string
}

/** One pin for each program and cgroup. */
function linkName({ program, cgroup }: WantedLink): string {
  return `${program.replace('ambridge_', '')}-${cgroupId(cgroup)}`
}

export type ProgramFd = (program: string) => number

/**
 * Make the pinned links be the wanted ones: attach what is missing or severed, put the current program into what is
 * there, then remove the rest, so that there is no moment without capture.
 */
export function attachLinks(
  wanted: readonly WantedLink[],
  dir: string,
  fdOf: ProgramFd,
  report: Report,
): void {
  const names = new Set(wanted.map(linkName))
  for (const link of wanted) attachLink(link, join(dir, linkName(link)), fdOf, report)
  for (const name of readdirSync(dir)) {
    if (names.has(name)) continue
    rmSync(join(dir, name))
    report('link', name, 'removed')
  }
}

function attachLink(link: WantedLink, path: string, fdOf: ProgramFd, report: Report): void {
  const name = linkName(link)
  const existing = isPinned(path) ? readLinkPin(path) : undefined
  if (existing?.alive) {
    refreshLink(path, fdOf(link.program))
    report('link', name, 'already there')
    return
  }
  rmSync(path, { force: true })
  createLink(link, path, fdOf)
  report('link', name, existing === undefined ? 'attached' : 'attached again: it was severed')
}

function createLink({ program, attachType, cgroup }: WantedLink, path: string, fdOf: ProgramFd): void {
  const target = openSync(cgroup, 'r')
  try {
    const link = attachToCgroup(fdOf(program), target, attachType)
    try {
      pin(link, path)
    } finally {
      closeSync(link)
    }
  } catch (err) {
    throw err instanceof SystemError && err.code === 'EINVAL' ? noLinks(err) : err
  } finally {
    closeSync(target)
  }
}

function noLinks(cause: SystemError): RemedyError {
  const message = 'this kernel lacks a needed feature: bpf_link on cgroups (Linux 5.7)'
  return new RemedyError(message, 'Linux 5.15 or newer is needed', { cause })
}

function refreshLink(path: string, programFd: number): void {
  const link = openPin(path)
  try {
    updateLink(link, programFd)
  } finally {
    closeSync(link)
  }
}

function isPinned(path: string): boolean {
  const at = path.lastIndexOf('/')
  return readdirSync(path.slice(0, at)).includes(path.slice(at + 1))
}
