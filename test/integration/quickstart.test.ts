// SPDX-License-Identifier: Apache-2.0
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { ambridgePath } from '../support/ambridge.ts'
import { cgroup2Root } from '../support/cgroup.ts'
import { own } from '../support/cleanup.ts'
import { tryRun } from '../support/exec.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))

/** The code block below the heading. */
function quickStart(): string {
  const [, section = ''] = readFileSync(`${root}/README.md`, 'utf8').split('\n## Quick start\n')
  return /```bash\n([\s\S]*?)```/.exec(section)?.[1] ?? ''
}

test('the quick start of README.md does what its comments say, and leaves nothing behind', async () => {
  ambridgePath()
  // In case it breaks off: what it makes is removed all the same.
  const left = [
    own({ kind: 'netns', name: 'quickstart' }),
    own({ kind: 'cgroup', path: '/quickstart' }),
    own({ kind: 'dir', path: '/sys/fs/bpf/quickstart' }),
  ]
  const { stdout, stderr } = await tryRun('bash', ['-c', quickStart()], { cwd: root, timeoutMs: 60_000 })
  const nothing = {
    netns: existsSync('/run/netns/quickstart'),
    cgroup: readdirSync(cgroup2Root()).includes('quickstart'),
    pins: readdirSync('/sys/fs/bpf').includes('quickstart'),
  }
  for (const remove of left) await remove()
  expect(stderr).toContain('curl: (7) Failed to connect')
  expect(stdout).toContain('"dialled":"192.0.2.1:80"')
  expect(stdout).toContain('pod quickstart: ambient, 10.1.2.3')
  expect(stdout).not.toContain('SEVERED')
  expect(nothing).toEqual({ netns: false, cgroup: false, pins: false })
})
