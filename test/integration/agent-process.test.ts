// SPDX-License-Identifier: Apache-2.0
/** The agent as a process: how it ends, what it is told wrongly, and what it writes. */
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { connect as dial } from 'node:net'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { nodeName } from '../support/agent.ts'
import { annotated, errorOf, isCaptured } from '../support/agent-checks.ts'
import { AgentMesh } from '../support/agent-mesh.ts'
import { tryAmbridge } from '../support/ambridge.ts'
import { waitFor } from '../support/exec.ts'
import type { LanHost } from '../support/netns.ts'

let field: AgentMesh
let far: LanHost
const secret = 'c2VjcmV0LXRva2Vu'

beforeAll(async () => {
  field = await AgentMesh.create({ hosts: 2 })
  far = field.mesh.host(1)
  await field.mesh.serve(far, 'far', [8080])
  field.api.token = secret
  field.api.writeKubeconfig()
  await field.agent.stop()
  await field.agent.start(['--log-level', 'debug'])
})
afterAll(() => field?.[Symbol.asyncDispose]())

const lastLine = () => field.agent.log().at(-1)
const connections = () => field.agent.metric('ambridge_ztunnel_connections')

describe('SIGTERM', () => {
  test('lets an ADD that is under way finish; pods stay captured', async () => {
    await using ztunnel = await field.ztunnel({ zdsDelayAckMs: 1000 })
    await ztunnel.waitForSnapshot()
    await using pod = await field.pod(0, { namespace: 'mesh' })
    const adding = pod.add()
    await ztunnel.waitForAdd(pod.uid)
    field.agent.signal('SIGTERM')
    expect(await adding).toMatchObject({ code: 0 })
    expect(await field.agent.ended()).toBe(0)
    expect(lastLine()).toMatchObject({ level: 'info', message: 'agent stops' })
    expect(await isCaptured(pod, far)).toBe(true)
    await field.agent.start()
    await annotated(pod, 'enabled')
    await pod.del()
    field.api.pods.delete(pod)
  })

  test('is not held up by who is connected and silent', async () => {
    const { address = '' } = (await field.agent.waitForLog('http server listens')) as { address?: string }
    const [host, port] = address.split(':')
    const silent = dial(Number(port), host)
    silent.on('error', () => undefined)
    await once(silent, 'connect')
    field.agent.signal('SIGTERM')
    expect(await field.agent.ended()).toBe(0)
    silent.destroy()
    await field.agent.start()
  })

  test('a second one ends it at once', async () => {
    await using mute = await field.ztunnel({ zdsMute: true })
    await waitFor('the connection', async () => (await connections()) === 1)
    await using pod = await field.pod(0, { namespace: 'mesh' })
    const adding = pod.add()
    await field.agent.waitForLog('decided', ({ containerId }) => containerId === pod.containerId)
    field.agent.signal('SIGTERM')
    await field.agent.waitForLog('asked to stop')
    field.agent.signal('SIGTERM')
    expect(await field.agent.ended()).toBeUndefined()
    expect(errorOf(await adding)).toMatchObject({ code: 11, details: expect.not.stringContaining('ztunnel') })
    expect((await field.mesh.status()).pods).toEqual([])
    await mute.stop()
    field.api.pods.delete(pod)
    await field.agent.start()
  })
})

describe('an option that is wrong is named, with what to do', () => {
  const cases: readonly (readonly [string, readonly string[], RegExp])[] = [
    ['--node-name', [], /--node-name.*\n.*NODE_NAME/],
    ['--log-level', ['--log-level', 'info,zds:loud'], /--log-level: "zds:loud".*\n.*debug.*zds/],
    ['--log-level of no module', ['--log-level', 'x:info'], /--log-level: "x:info".*\n.*modules/],
    ['--http', ['--http', 'localhost'], /--http: "localhost".*\n.*127\.0\.0\.1:15014/],
    ['--http port', ['--http', '127.0.0.1:65536'], /--http: .*65536.*\n.*127\.0\.0\.1:15014/],
    ['--ztunnel', ['--ztunnel', 'ztunnel'], /--ztunnel: "ztunnel".*\n.*istio-system\/ztunnel/],
    ['--selectors', ['--selectors', '- pod: {}'], /--selectors: .*\n.*podSelector/],
    ['--selectors file', ['--selectors', '/nowhere.yaml'], /--selectors: .*nowhere.*\n.*podSelector/],
    ['--reconcile-seconds', ['--reconcile-seconds', '0'], /--reconcile-seconds: "0".*\n.*30/],
    ['--entry', ['--entry', '{"type":"ambridge",}'], /--entry.*\n.*ambridge/],
    [
      '--entry mode',
      ['--entry', '{"type":"ambridge","mode":"sidecar"}'],
      /--entry: .*sidecar.*\n.*--sidecar/,
    ],
    [
      '--entry socket',
      ['--entry', '{"type":"ambridge","agentSocket":"/x"}'],
      /--entry: agentSocket.*\n.*leave/,
    ],
    ['--entry field', ['--entry', '{"type":"ambridge","dnsCapture":"yes"}'], /dnsCapture.*\n/],
    ['--exclude-namespaces', ['--exclude-namespaces', 'a,,b'], /--exclude-namespaces: "".*\n.*kube-system/],
    ['--kubeconfig', ['--kubeconfig', '/nowhere'], /nowhere.*\n/],
    ['--proxy-identity', ['--proxy-identity', 'name'], /--proxy-identity.*\n?.*cgroup, mark/],
    ['--cgroup', ['--cgroup', '/nowhere'], /nowhere.*\n.*--cgroup/],
    ['--probes', ['--probes', 'some'], /--probes.*kubelet/],
    ['--socket', ['--socket', `/tmp/${'x'.repeat(200)}/agent.sock`], /agent\.sock.*\n/],
    ['--bpffs', ['--bpffs', '/tmp/nowhere'], /bpffs.*\n.*mount/],
    ['an unknown one', ['--selector', 'x'], /--selector.*\n/],
  ]
  test.for(cases)('%s', async ([name, args, text]) => {
    const { bpffs } = field.mesh
    const { dir } = field.agent
    const paths = [
      '--socket',
      `${dir}/2/a.sock`,
      '--zds',
      `${dir}/2/z.sock`,
      '--enrollment-file',
      `${dir}/2/e`,
    ]
    const usual = [
      '--kubeconfig',
      field.api.kubeconfig,
      '--no-install',
      '--http',
      '127.0.0.1:0',
      '--bpffs',
      bpffs,
    ]
    const who = name === '--node-name' ? [] : ['--node-name', nodeName]
    const { code, stderr } = await tryAmbridge([
      'agent',
      ...who,
      ...usual,
      '--probes',
      'off',
      ...paths,
      ...args,
    ])
    const text2 = withoutLog(stderr)
    expect(text2).toMatch(text)
    expect(text2).toMatch(/^ambridge: /)
    expect([1, 2]).toContain(code)
  })
})

function withoutLog(stderr: string): string {
  const lines = stderr.split('\n').filter((line) => !line.startsWith('{'))
  return lines.join('\n')
}

describe('the log', () => {
  test('is JSON with level, module and time, and has no secret', async () => {
    field.api.fail({ status: 401, times: 4 })
    field.api.dropWatches()
    await field.agent.waitForLog('cannot follow the API server')
    await field.agent.stop()
    const files = readdirSync(field.agent.dir).filter((name) => name.endsWith('.log'))
    expect(files.length).toBeGreaterThan(3)
    const text = files.map((name) => readFileSync(`${field.agent.dir}/${name}`, 'utf8')).join('')
    expect(text).not.toContain(secret)
    const lines = text.trimEnd().split('\n')
    expect(lines.length).toBeGreaterThan(20)
    for (const line of lines) {
      expect(line).toMatch(/^\{.*\}$/)
      expect(JSON.parse(line)).toMatchObject({
        level: expect.stringMatching(/^(error|warn|info|debug)$/),
        module: expect.stringMatching(/^(agent|k8s|zds|plugin|pods|host|reconcile)$/),
        time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
        message: expect.stringMatching(/\w/),
      })
    }
  })

  test('has the level of each module', async () => {
    field.agent.launch(['--log-level', 'warn,zds:debug'])
    await using ztunnel = await field.ztunnel()
    await ztunnel.waitForSnapshot()
    await field.agent.waitForLog('snapshot sent')
    const quiet = field.agent.log().filter(({ module }) => module !== 'zds')
    expect(quiet.filter(({ level }) => level === 'info' || level === 'debug')).toEqual([])
  })
})
