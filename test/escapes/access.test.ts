// SPDX-License-Identifier: Apache-2.0
/** What a pod can reach of the programs themselves. */
import { afterAll, beforeAll, expect } from 'vitest'
import { run } from '../support/exec.ts'
import { enter, parseLines, toolPath } from '../support/sock.ts'
import { Field } from './field.ts'
import { vector } from './vector.ts'

type Calls = Readonly<Record<'program' | 'map' | 'pin' | 'programs' | 'maps' | 'links', string>>

let field: Field

beforeAll(async () => {
  field = await Field.create()
})
afterAll(() => field?.dispose())

/** Root with every capability but those that are the node's: CAP_SYS_ADMIN, CAP_BPF, CAP_PERFMON. */
const asPod = ['setpriv', '--bounding-set=-sys_admin,-bpf,-perfmon', '--inh-caps=-sys_admin,-bpf,-perfmon']
const asUser = ['setpriv', '--reuid=1000', '--regid=1000', '--clear-groups']
const inUserNamespace = ['unshare', '--user', '--map-root-user']

async function reachForBpf(wrapper: readonly string[]): Promise<Calls> {
  const pin = `${field.mesh.bpffs}/maps/pods`
  const [command = '', ...args] = enter(field.at(field.pod), [...wrapper, await toolPath('sock'), 'bpf', pin])
  const [calls] = parseLines<Calls>(await run(command, args))
  if (!calls) throw new Error('sock bpf reported nothing')
  return calls
}

const everything = { program: '', map: '', pin: '', programs: '', maps: '', links: '' }
const byId = { programs: 'EPERM', maps: 'EPERM', links: 'EPERM' }

for (const [who, wrapper] of [
  ['root of the pod', asPod],
  ['a user', asUser],
  ['root of a user namespace of its own', inUserNamespace],
] as const) {
  vector(`bpf() by ${who}`, async () => {
    expect(await reachForBpf([])).toEqual(everything)
    const calls = await reachForBpf(wrapper)
    expect(calls).toMatchObject({ program: 'EPERM', map: 'EPERM', ...byId })
    return { without: 'works with CAP_BPF', with: 'refused: EPERM' }
  })
}

vector('a bpffs of its own, mounted in a user and mount namespace', async () => {
  const script = 'mount -t bpf bpf /mnt && find /mnt -mindepth 1 | wc -l'
  const wrapper = ['unshare', '--user', '--map-root-user', '--mount', 'sh', '-c', script]
  const [command = '', ...args] = enter(field.at(field.pod), wrapper)
  const seen = await run(command, args).catch(() => 'refused')
  expect(['0', 'refused']).toContain(seen.trim())
  return { without: 'does not apply', with: seen.trim() === '0' ? 'empty' : 'refused' }
})

vector("the proxy's cgroup, entered from a cgroup namespace", async () => {
  const script = 'mount -t cgroup2 none /mnt && find /mnt -name cgroup.procs | head -n 100'
  const wrapper = ['unshare', '--cgroup', '--mount', 'sh', '-c', script]
  const [command = '', ...args] = enter(field.at(field.pod), wrapper)
  const files = (await run(command, args)).trim().split('\n')
  expect(files).toEqual(['/mnt/cgroup.procs'])
  return { without: 'does not apply', with: 'not there: only what is below the pod' }
})
