// SPDX-License-Identifier: Apache-2.0
/** The agent keeps the plugin on the host: executable and conflist, whoever writes them. And it is the only one. */
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { nodeName } from '../support/agent.ts'
import { isCaptured, repairs } from '../support/agent-checks.ts'
import { AgentMesh } from '../support/agent-mesh.ts'
import { ambridgePath, tryAmbridge } from '../support/ambridge.ts'
import { own } from '../support/cleanup.ts'
import { run, waitFor } from '../support/exec.ts'
import type { LanHost } from '../support/netns.ts'

const dir = `${tmpdir()}/ambt${process.pid}-host`
const install = { binDir: `${dir}/bin`, confDir: `${dir}/net.d` }
const conflist = `${install.confDir}/10-primary.conflist`
const primary = { type: 'bridge', bridge: 'cni0' }
const removeDir = own({ kind: 'dir', path: dir })
let field: AgentMesh
let far: LanHost

beforeAll(async () => {
  for (const path of Object.values(install)) mkdirSync(path, { recursive: true })
  field = await AgentMesh.create({ hosts: 2, agent: { install } })
  far = field.mesh.host(1)
  await field.mesh.serve(far, 'far', [8080])
})
afterAll(async () => {
  await field?.[Symbol.asyncDispose]()
  await removeDir()
})

/** As others do: a new file takes its place. */
function writePrimary(name = 'primary'): void {
  writeFileSync(`${conflist}.new`, JSON.stringify({ cniVersion: '1.0.0', name, plugins: [primary] }))
  renameSync(`${conflist}.new`, conflist)
}

interface Written {
  readonly name: string
  readonly plugins: readonly { readonly type: string; readonly [field: string]: unknown }[]
}

/** With our entry in it. */
function extended(name = 'primary'): Promise<Written> {
  return waitFor('the entry', () => {
    const written = JSON.parse(readFileSync(conflist, 'utf8')) as Written
    return written.name === name && written.plugins.at(-1)?.type === 'ambridge' && written
  })
}

const ready = () => field.agent.get('/readyz')
const hostRepairs = async () => (await repairs(field.agent))['host file'] ?? 0

test('no network configuration yet: not ready, with the reason; then it is extended', async () => {
  await using ztunnel = await field.ztunnel()
  await ztunnel.waitForSnapshot()
  expect(await ready()).toMatchObject({ status: 503, text: expect.stringContaining(install.confDir) })
  expect(await field.agent.waitForLog('plugin is not in place')).toMatchObject({
    level: 'warn',
    module: 'host',
  })
  writePrimary()
  const { plugins } = await extended()
  const { socket, enrollmentFile } = field.agent
  expect(plugins).toMatchObject([primary, { agentSocket: socket, enrollmentFile, bpffs: field.mesh.bpffs }])
  expect(await run(`${install.binDir}/ambridge`, ['version'])).toEqual(await run(ambridgePath(), ['version']))
  await waitFor('ready', async () => (await ready()).status === 200)
  expect(await hostRepairs()).toBe(0)
})

test('a primary CNI that writes its file again is noticed at once', async () => {
  writePrimary('again')
  expect((await extended('again')).plugins).toHaveLength(2)
  expect(await hostRepairs()).toBe(1)
})

test('a directory that is made anew is looked at by the next comparison', async () => {
  await field.agent.stop()
  await field.agent.start(['--reconcile-seconds', '1'])
  rmSync(install.confDir, { recursive: true })
  await field.agent.waitForLog(
    'plugin is not in place',
    ({ error }) => error?.endsWith('does not exist') ?? false,
  )
  mkdirSync(install.confDir)
  writePrimary('anew')
  await extended('anew')
})

test('an executable that is gone comes back', async () => {
  rmSync(`${install.binDir}/ambridge`)
  await waitFor('the executable', () => existsSync(`${install.binDir}/ambridge`))
  expect(await hostRepairs()).toBeGreaterThan(0)
})

test('a second agent ends at once, and the first does not notice', async () => {
  await using ztunnel = await field.ztunnel()
  await ztunnel.waitForSnapshot()
  const { socket, zds, enrollmentFile } = field.agent
  const paths = ['--socket', socket, '--zds', zds, '--enrollment-file', enrollmentFile]
  const where = ['--bpffs', field.mesh.bpffs, '--no-install', '--http', '127.0.0.1:0', '--probes', 'off']
  const who = ['--node-name', nodeName, '--kubeconfig', field.api.kubeconfig]
  const { code, stderr } = await tryAmbridge(['agent', ...who, ...where, ...paths])
  expect({ code, stderr }).toEqual({
    code: 1,
    stderr: expect.stringMatching(`^ambridge: another agent listens on ${socket}\n  .*--socket`),
  })
  await using pod = await field.pod(0, { namespace: 'mesh' })
  expect(await pod.add()).toMatchObject({ code: 0 })
  expect(await isCaptured(pod, far)).toBe(true)
  await pod.del()
})
