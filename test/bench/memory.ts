// SPDX-License-Identifier: Apache-2.0
/** Memory of the kernel that enrolled pods take: their map entries, and their own instance of a program. */
import { closeSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path/posix'
import { openPin, readLinkPin } from '../../src/bpf/link.ts'
import { pinPaths } from '../../src/linux/bpffs.ts'
import { run } from '../support/exec.ts'
import { Mesh } from '../support/mesh.ts'
import { measured, type Row, type Suite } from './stats.ts'

const pods = 100

/** Bytes. */
interface Memory {
  readonly maps: number
  /** Of the kernel's account: the program in its own form. */
  readonly programs: number
  /** In the form of the machine, which the kernel accounts to nobody. */
  readonly jited: number
  /** Types, one set for each instance. */
  readonly btf: number
}

export const memory: Suite = {
  name: 'memory',
  run: async () => {
    await using mesh = await Mesh.create({ hosts: pods })
    const before = await readMemory(mesh)
    for (const host of mesh.hosts) await mesh.enroll(host)
    const after = await readMemory(mesh)
    const row = (id: string, target: number | null, ...kinds: (keyof Memory)[]): Row => {
      const bytes = kinds.reduce((sum, kind) => sum + after[kind] - before[kind], 0)
      return { ...measured({ id: `memory/${id}`, unit: 'KiB', target }, [bytes / pods / 1024]), runs: pods }
    }
    return [
      row('pod', 16, 'maps', 'programs'),
      row('pod-maps', null, 'maps'),
      row('pod-program', null, 'programs'),
      row('pod-machine-code', null, 'jited'),
      row('pod-types', null, 'btf'),
      row('pod-all', 16, 'maps', 'programs', 'jited', 'btf'),
    ]
  },
}

async function readMemory({ bpffs }: Mesh): Promise<Memory> {
  const { maps, netns } = pinPaths(bpffs)
  const ids = readdirSync(netns).map((name) => readLinkPin(join(netns, name)).programId)
  const programs = await programsOf(ids)
  const types = await typesOf(programs.map(({ btf_id: id }) => id))
  return {
    maps: sum(readdirSync(maps).map((name) => memlock(join(maps, name)))),
    programs: sum(programs.map(({ bytes_memlock: bytes }) => bytes)),
    jited: sum(programs.map(({ bytes_jited: bytes }) => bytes)),
    btf: sum(types.map(({ size }) => size)),
  }
}

/** What the kernel says of a pinned map: the entries count, not the room that there is. */
function memlock(pin: string): number {
  const fd = openPin(pin)
  try {
    const [, bytes] = /^memlock:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')) ?? []
    return Number(bytes)
  } finally {
    closeSync(fd)
  }
}

interface Program {
  readonly id: number
  readonly bytes_memlock: number
  readonly bytes_jited: number
  readonly btf_id: number
}

async function programsOf(ids: readonly number[]): Promise<Program[]> {
  const wanted = new Set(ids)
  const all = JSON.parse(await run('bpftool', ['-j', 'prog', 'show'])) as Program[]
  return all.filter(({ id }) => wanted.has(id))
}

async function typesOf(ids: readonly number[]): Promise<{ size: number }[]> {
  const wanted = new Set(ids)
  const all = JSON.parse(await run('bpftool', ['-j', 'btf', 'show'])) as { id: number; size: number }[]
  return all.filter(({ id }) => wanted.has(id))
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}
