// SPDX-License-Identifier: Apache-2.0
/** What real container runtimes say to the plugin, in every version of CNI that they speak; the matrix is printed at the end. */
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { afterAll, expect, test } from 'vitest'
import type { PodStatus, Status } from '../../installer/programs/status.ts'
import { ambridgePath } from '../support/ambridge.ts'
import { bridge, type Conflist } from '../support/conflists.ts'
import { installPlugins } from '../support/containerd.ts'
import type { CriError } from '../support/cri.ts'
import type { ExecResult } from '../support/exec.ts'
import { Netns } from '../support/netns.ts'
import { type Node, startNode } from '../support/node.ts'
import { NodeSpace } from '../support/node-space.ts'
import { setUpPodman } from '../support/podman.ts'
import { sandboxConfig } from '../support/pods.ts'
import { removeResource } from '../support/runtime/resource.ts'
import { fetchRuntime } from '../support/runtimes.ts'

const stockPlugins = '/usr/lib/cni'
const pins = '/sys/fs/bpf/ambridge'

interface Row {
  readonly runtime: string
  readonly operation: string
  /** By version of CNI. */
  readonly results: Record<string, string>
}

const columns = ['0.3.1', '0.4.0', '1.0.0', '1.1.0']

const rows: Row[] = []

afterAll(() => {
  const widths = [24, 34, 6, 6, 6, 6]
  const line = (cells: readonly string[]) => cells.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join(' ')
  const text = [['runtime', 'operation', ...columns], ...rows.map(cellsOf)].map((cells) =>
    line(cells).trimEnd(),
  )
  process.stdout.write(`${text.join('\n')}\n-: this version of CNI has no such command\n`)
})

function cellsOf({ runtime, operation, results }: Row): string[] {
  return [runtime, operation, ...columns.map((version) => results[version] ?? '')]
}

/** The operations of one runtime in one version. One that fails stands in the matrix, too. */
function recorder(runtime: string, version: string) {
  return async (operation: string, perform: () => Promise<unknown>): Promise<void> => {
    const known = rows.find((each) => each.runtime === runtime && each.operation === operation)
    const row: Row = known ?? { runtime, operation, results: {} }
    if (known === undefined) rows.push(row)
    row.results[version] = 'FAILED'
    row.results[version] = (await perform()) === absent ? '-' : 'ok'
  }
}

/** The version of CNI has no such command. */
const absent = Symbol('absent')

function notAvailable(runtime: string, reason: string): void {
  rows.push({ runtime, operation: `not available: ${reason}`, results: {} })
}

/** Ours last, as the installer puts it. */
function chainOf(node: NodeSpace, cniVersion: string, main = bridge(node, { cniVersion }).plugins): Conflist {
  const capabilities = { cgroupPath: true, 'io.kubernetes.cri.pod-annotations': true }
  const entry = {
    type: 'ambridge',
    capabilities,
    enrollment: { source: 'static', all: true },
  }
  return { cniVersion, name: `conformance-${cniVersion}`, plugins: [...main, entry] }
}

async function ambridge(node: NodeSpace, command: string, args: readonly string[] = []): Promise<string> {
  const { stdout, stderr, code } = await node.inNode(ambridgePath(), [command, ...args])
  if (code !== 0) throw new Error(`ambridge ${command}: exit code ${code}\n${stdout}${stderr}`)
  return stdout
}

function load(node: NodeSpace): Promise<string> {
  return ambridge(node, 'load', [
    '--cgroup',
    node.cgroup.dir,
    '--proxy-cgroup',
    node.cgroup.child('proxy').dir,
  ])
}

async function podsOf(node: NodeSpace): Promise<readonly PodStatus[]> {
  return (JSON.parse(await ambridge(node, 'status', ['-o', 'json'])) as Status).pods
}

type CniTool = (command: string, options?: { cgroupPath?: string }) => Promise<ExecResult>

/** cnitool in the node, for one network and one pod. */
function cnitoolIn(node: NodeSpace, tool: string, conflist: Conflist, binDir: string, netns: Netns): CniTool {
  const confDir = `${node.dir}/net-${conflist.cniVersion}`
  mkdirSync(confDir)
  writeFileSync(`${confDir}/10-net.conflist`, JSON.stringify(conflist))
  return (command, { cgroupPath } = {}) => {
    const env = {
      CNI_PATH: binDir,
      NETCONFPATH: confDir,
      CNI_ARGS: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart',
      CAP_ARGS: JSON.stringify(cgroupPath === undefined ? {} : { cgroupPath }),
      PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
    }
    return node.inNode(tool, [command, conflist.name, netns.path], { env })
  }
}

/** It says nothing but the result. */
async function succeed(result: Promise<ExecResult>): Promise<string> {
  const { code, stdout, stderr } = await result
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  return stdout
}

async function complaintOf(result: Promise<ExecResult>): Promise<string> {
  const { code, stdout, stderr } = await result
  expect(code).toBe(1)
  return stdout + stderr
}

test('cnitool', { timeout: 1_200_000 }, async () => {
  const fetched = await fetchRuntime('cnitool')
  if ('reason' in fetched) throw new Error(`cnitool cannot be built: ${fetched.reason}`)
  await using node = await NodeSpace.create()
  const binDir = `${node.dir}/bin`
  installPlugins(binDir, stockPlugins)
  linkPlugin(binDir)
  for (const version of ['0.3.1', '0.4.0', '1.0.0']) {
    await tryVersion(node, `${fetched.dir}/cnitool`, chainOf(node, version), binDir)
  }
  const newer = await fetchRuntime('containerd-sid')
  const newerBinDir = `${node.dir}/newer`
  installPlugins(newerBinDir, 'reason' in newer ? stockPlugins : `${newer.dir}/usr/lib/cni`)
  linkPlugin(newerBinDir)
  // No stock plugin of this machine speaks 1.1.0: then ours is alone.
  const main = 'reason' in newer ? [] : undefined
  await tryVersion(node, `${fetched.dir}/cnitool`, chainOf(node, '1.1.0', main), newerBinDir)
})

function linkPlugin(binDir: string): void {
  symlinkSync(ambridgePath(), `${binDir}/ambridge`)
}

async function tryVersion(node: NodeSpace, path: string, conflist: Conflist, binDir: string): Promise<void> {
  const { cniVersion } = conflist
  await using netns = await Netns.create('conformance')
  const tool = cnitoolIn(node, path, conflist, binDir, netns)
  const record = recorder('cnitool (libcni 1.3)', cniVersion)
  const podCgroup = node.kubepods.child(`pod-${cniVersion}`)
  const [isNew, hasCheck] = [cniVersion === '1.1.0', cniVersion !== '0.3.1']

  await record('STATUS, not loaded', async () => {
    if (isNew) expect(await complaintOf(tool('status'))).toContain('the eBPF programs are not loaded')
    return isNew ? undefined : absent
  })
  await record('ADD, not loaded', async () => {
    expect(await complaintOf(tool('add'))).toMatch(
      /cannot enroll pod shop\/cart.*the eBPF programs are not loaded/,
    )
  })
  await record('DEL after that', () => succeed(tool('del')))
  await load(node)
  await record('STATUS', async () => {
    // libcni does not ask the plugins of an older version.
    await succeed(tool('status'))
    return isNew ? undefined : absent
  })
  await record('ADD', async () => {
    const result = JSON.parse(await succeed(tool('add', { cgroupPath: podCgroup.path })))
    expect(result.cniVersion).toBe(cniVersion)
    const ips: string[] = (result.ips ?? []).map(({ address }: { address: string }) =>
      address.replace(/\/.*/, ''),
    )
    const [pod, ...others] = await podsOf(node)
    expect(others).toEqual([])
    expect(pod).toMatchObject({
      namespace: 'shop',
      name: 'cart',
      alive: true,
      cgroupId: String(podCgroup.id),
    })
    expect(pod?.addresses).toEqual(expect.arrayContaining(ips))
  })
  await record('CHECK', async () => {
    if (hasCheck) return succeed(tool('check'))
    expect(await complaintOf(tool('check'))).toContain('does not support the CHECK')
    return absent
  })
  await record('CHECK of a pod without its link', async () => {
    if (!hasCheck) return absent
    const [pod] = await podsOf(node)
    await succeed(node.inNode('rm', [`${pins}/netns/${pod?.link}`]))
    expect(await complaintOf(tool('check'))).toMatch(/shop\/cart is not captured as it should be/)
    return undefined
  })
  await record('DEL', async () => {
    await succeed(tool('del'))
    expect(await podsOf(node)).toEqual([])
  })
  await record('DEL again', () => succeed(tool('del')))
  await record('GC', async () => {
    if (!isNew) return absent
    return tryGc(node, tool, netns, conflist)
  })
  await ambridge(node, 'unload')
}

/** libcni calls DEL for what it knows, then GC: cnitool gives no list, so what libcni does not know stays. */
async function tryGc(node: NodeSpace, tool: CniTool, netns: Netns, conflist: Conflist): Promise<void> {
  await succeed(tool('add'))
  await callPlugin(node, 'ADD', conflist, {
    CNI_CONTAINERID: 'unknown',
    CNI_IFNAME: 'eth0',
    CNI_NETNS: netns.path,
  })
  await succeed(tool('gc'))
  expect((await podsOf(node)).map(({ containerId }) => containerId)).toEqual(['unknown'])
  await callPlugin(node, 'DEL', conflist, { CNI_CONTAINERID: 'unknown', CNI_IFNAME: 'eth0' })
}

/** As libcni would: one plugin's configuration on stdin. */
async function callPlugin(
  node: NodeSpace,
  command: string,
  conflist: Conflist,
  env: object,
  more = {},
): Promise<string> {
  const { cniVersion, name, plugins } = conflist
  const input = JSON.stringify({ ...plugins.at(-1), cniVersion, name, ...more })
  const complete = { CNI_COMMAND: command, CNI_PATH: '/opt/cni/bin', ...env }
  return succeed(node.inNode(ambridgePath(), [], { env: complete, input }))
}

test('GC and STATUS as a runtime of CNI 1.1.0 calls them', { timeout: 120_000 }, async () => {
  await using node = await NodeSpace.create()
  await using one = await Netns.create('one')
  await using other = await Netns.create('other')
  const conflist = chainOf(node, '1.1.0', [])
  const record = recorder('CNI 1.1.0 by hand', '1.1.0')
  const names = async () => (await podsOf(node)).map(({ containerId }) => containerId).sort()
  const call = (command: string, env: object, more?: object) => callPlugin(node, command, conflist, env, more)
  await record('STATUS, not loaded: 50', async () => {
    const started = performance.now()
    const { code, stdout } = await node.inNode(ambridgePath(), [], {
      env: { CNI_COMMAND: 'STATUS', CNI_PATH: '/opt/cni/bin' },
      input: JSON.stringify({ ...conflist.plugins.at(-1), cniVersion: '1.1.0', name: 'x' }),
    })
    expect({ code, error: JSON.parse(stdout).code }).toEqual({ code: 1, error: 50 })
    expectFast(started)
  })
  await load(node)
  await record('STATUS, loaded', async () => {
    const started = performance.now()
    expect(await call('STATUS', {})).toBe('')
    expectFast(started)
  })
  for (const key of ['cni.dev/valid-attachments', 'cni.dev/attachments']) {
    await record(`GC by ${key}`, async () => {
      await call('ADD', { CNI_CONTAINERID: 'kept', CNI_IFNAME: 'eth0', CNI_NETNS: one.path })
      await call('ADD', { CNI_CONTAINERID: 'stale', CNI_IFNAME: 'eth0', CNI_NETNS: other.path })
      await call('GC', {}, { [key]: [{ containerID: 'kept', ifname: 'eth0' }] })
      expect(await names()).toEqual(['kept'])
    })
  }
  await record('GC without a list', async () => {
    await call('GC', {})
    expect(await names()).toEqual(['kept'])
  })
  await record('GC with an empty list', async () => {
    await call('GC', {}, { 'cni.dev/valid-attachments': [] })
    expect(await names()).toEqual([])
  })
  await ambridge(node, 'unload')
})

/** The kubelet asks every few seconds. */
function expectFast(started: number): void {
  expect(performance.now() - started).toBeLessThan(2_000)
}

interface Containerd {
  readonly label: string
  readonly bin: string
  readonly cniBins: string
  readonly versions: readonly string[]
}

test('containerd of Debian 12', { timeout: 300_000 }, async () => {
  await tryContainerd({
    label: 'containerd 1.6',
    bin: '/usr/bin/containerd',
    cniBins: stockPlugins,
    versions: ['0.3.1', '0.4.0', '1.0.0'],
  })
})

test('containerd of Debian 13', { timeout: 1_200_000 }, async () => {
  const label = 'containerd 1.7'
  const fetched = await fetchRuntime('containerd-trixie')
  if ('reason' in fetched) return notAvailable(label, fetched.reason)
  const bin = `${fetched.dir}/usr/bin/containerd`
  await tryContainerd({ label, bin, cniBins: stockPlugins, versions: ['0.3.1', '0.4.0', '1.0.0'] })
})

test('containerd of Debian unstable', { timeout: 1_200_000 }, async () => {
  const label = 'containerd 2'
  const fetched = await fetchRuntime('containerd-sid')
  if ('reason' in fetched) return notAvailable(label, fetched.reason)
  const [bin, cniBins] = [`${fetched.dir}/usr/bin/containerd`, `${fetched.dir}/usr/lib/cni`]
  await tryContainerd({ label, bin, cniBins, versions: ['0.4.0', '1.0.0', '1.1.0'] })
})

async function tryContainerd({ label, bin, cniBins, versions }: Containerd): Promise<void> {
  await using node = await startNode({ containerdBin: bin, cniBins })
  linkPlugin(node.binDir)
  const { runtime_version: version } = await node.cri.Version({})
  for (const cniVersion of versions) {
    const record = recorder(`${label} (${version.replace(/[~+].*/, '')})`, cniVersion)
    await node.useConflist(chainOf(node, cniVersion))
    // Before 1.1.0 a network is ready when its configuration is.
    await record('STATUS, not loaded', async () => {
      await expectNetworkReady(node, cniVersion !== '1.1.0')
      return cniVersion === '1.1.0' ? undefined : absent
    })
    await record('RunPodSandbox (ADD), not loaded', async () => {
      await expect(runSandbox(node)).rejects.toSatisfy(({ details }: CriError) => {
        return /cannot enroll pod shop\/web-0; the eBPF programs are not loaded/.test(details)
      })
      expect((await node.cri.ListPodSandbox({})).items).toEqual([])
    })
    await load(node)
    await record('STATUS', async () => {
      await expectNetworkReady(node, true)
      return cniVersion === '1.1.0' ? undefined : absent
    })
    await tryPodLife(node, record)
    await ambridge(node, 'unload')
  }
}

async function tryPodLife(node: Node, record: ReturnType<typeof recorder>): Promise<void> {
  let sandbox: Sandbox | undefined
  await record('RunPodSandbox (ADD)', async () => {
    sandbox = await runSandbox(node)
    const [pod, ...others] = await podsOf(node)
    expect(others).toEqual([])
    const { namespace, name, uid } = sandbox.config.metadata
    const { pod_sandbox_id: containerId } = sandbox.id
    expect(pod).toMatchObject({ containerId, ifname: 'eth0', namespace, name, uid, alive: true })
    const { status } = await node.cri.PodSandboxStatus(sandbox.id)
    const ips = [status.network?.ip, ...(status.network?.additional_ips ?? []).map(({ ip }) => ip)]
    expect(ips).toHaveLength(2)
    expect(pod?.addresses).toEqual(expect.arrayContaining(ips))
  })
  const { id, config } = sandbox ?? (await runSandbox(node))
  await record('StopPodSandbox (DEL)', async () => {
    await node.cri.StopPodSandbox(id)
    expect(await podsOf(node)).toEqual([])
  })
  await record('RemovePodSandbox (DEL again)', async () => {
    await node.cri.RemovePodSandbox(id)
    expect((await node.cri.ListPodSandbox({})).items).toEqual([])
  })
  await removeResource({ kind: 'cgroup', path: config.linux.cgroup_parent })
}

interface Sandbox {
  readonly id: { readonly pod_sandbox_id: string }
  readonly config: ReturnType<typeof sandboxConfig>
}

/** Without containers: enough for the network. */
async function runSandbox(node: Node): Promise<Sandbox> {
  const config = sandboxConfig(node)
  mkdirSync(config.log_directory, { recursive: true })
  return { id: await node.cri.RunPodSandbox({ config }), config }
}

async function expectNetworkReady(node: Node, wanted: boolean): Promise<void> {
  const { conditions } = (await node.cri.Status({})).status
  const network = conditions.find(({ type }) => type === 'NetworkReady')
  expect(network?.status).toBe(wanted)
  if (!wanted) expect(network?.message).toContain('the eBPF programs are not loaded')
}

test('podman with its CNI backend', { timeout: 1_200_000 }, async () => {
  const fetched = await fetchRuntime('podman')
  if ('reason' in fetched) return notAvailable('podman 4.3', fetched.reason)
  await using node = await NodeSpace.create()
  const binDir = `${node.dir}/bin`
  installPlugins(binDir, stockPlugins)
  linkPlugin(binDir)
  await load(node)
  for (const cniVersion of ['0.4.0', '1.0.0'])
    await tryPodman(node, fetched.dir, chainOf(node, cniVersion), binDir)
  await ambridge(node, 'unload')
})

async function tryPodman(node: NodeSpace, root: string, conflist: Conflist, binDir: string): Promise<void> {
  const record = recorder('podman 4.3', conflist.cniVersion)
  const podman = await setUpPodman(node, { root, binDir, conflist })
  const network = [
    '--network',
    conflist.name,
    '--cgroup-parent',
    `${node.cgroup.path}/podman`,
    '--pull',
    'never',
  ]
  const image = 'example.test/busybox:1'
  await record('run -d (ADD)', async () => {
    await succeed(podman(['run', '-d', '--name', 'web', ...network, image]))
    // It names no namespace and no UID.
    expect(await podsOf(node)).toMatchObject([{ name: 'web', namespace: '', uid: '', alive: true }])
  })
  await record('rm -f (DEL)', async () => {
    await succeed(podman(['rm', '-f', '-t', '0', 'web']))
    expect(await podsOf(node)).toEqual([])
  })
  // Here podman waits 20 s for its monitor, which has long ended: once is enough.
  if (conflist.cniVersion !== '1.0.0') return
  await record('run --rm (ADD, DEL)', async () => {
    const address = await succeed(
      podman(['run', '--rm', ...network, '--entrypoint', '["/bin/ip","-4","-o","addr"]', image]),
    )
    expect(address).toMatch(/eth0 +inet 10\.231\./)
    expect(await podsOf(node)).toEqual([])
  })
}
