// SPDX-License-Identifier: Apache-2.0
import { closeSync, openSync, readFileSync } from 'node:fs'
import { programInfo } from '../../src/bpf/info.ts'
import { attachToCgroup, attachTypes } from '../../src/bpf/link.ts'
import { openObject } from '../../src/bpf/object.ts'
import { Cgroup } from '../support/cgroup.ts'
import { benchPath } from './tool.ts'

/** Connect hooks to compare with (reference.bpf.c), attached to a cgroup of their own. */
export interface ReferencePrograms extends AsyncDisposable {
  readonly cgroupDir: string
  /** Program ids. */
  readonly empty: number
  readonly storage: number
}

export async function attachReferencePrograms(): Promise<ReferencePrograms> {
  const bytes = readFileSync(await benchPath('reference.bpf.o'))
  await using stack = new AsyncDisposableStack()
  const cgroup = stack.use(Cgroup.create())
  using object = openObject(bytes, { name: 'reference', pinRoot: '/sys/fs/bpf' })
  const loaded = stack.use(object.load())
  const target = openSync(cgroup.dir, 'r')
  stack.defer(() => closeSync(target))
  const attach = (program: string): number => {
    const fd = loaded.programFd(program)
    const link = attachToCgroup(fd, target, attachTypes.CGROUP_INET4_CONNECT)
    stack.defer(() => closeSync(link))
    return programInfo(fd).id
  }
  const ids = { empty: attach('bench_empty'), storage: attach('bench_storage') }
  const owned = stack.move()
  return { ...ids, cgroupDir: cgroup.dir, [Symbol.asyncDispose]: () => owned.disposeAsync() }
}
