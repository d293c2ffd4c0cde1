// SPDX-License-Identifier: Apache-2.0
/** The plugin as a container runtime runs it: the built executable, programs that are loaded, network namespaces. */
import { mkdirSync, renameSync, rmdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { PodStatus, Status } from '../../installer/programs/status.ts'
import { Store } from '../../src/bpf/store.ts'
import { attachmentPinName } from '../../src/linux/bpffs.ts'
import { ambridge, ambridgeJson, ambridgePath, type CniCall, cni, tryCni } from '../support/ambridge.ts'
import { Cgroup } from '../support/cgroup.ts'
import { run, tryRun } from '../support/exec.ts'
import { Mesh } from '../support/mesh.ts'
import { Netns } from '../support/netns.ts'

const versions = ['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const
type Version = (typeof versions)[number]

let mesh: Mesh

beforeAll(async () => {
  mesh = await Mesh.create({ hosts: 2 })
})
afterEach(async () => {
  const { pods } = await mesh.status()
  for (const { containerId, ifname } of pods) await cni('DEL', { ...call(), containerId, ifname })
})
afterAll(() => mesh?.dispose())

/** For the pod that is host 0; `conf`: more keys of the network configuration. */
function call(conf: object = {}): CniCall {
  const { name, path } = mesh.host(0).netns
  return { containerId: name, netns: path, ifname: 'eth0', conf: { ...mesh.conf(), ...conf } }
}

/** As the plugin that made eth0 would report it. */
function prevResult(version: Version) {
  const { netns, ipv4, ipv6 } = mesh.host(0)
  const isOld = version.startsWith('0.')
  return {
    cniVersion: version,
    interfaces: [
      { name: 'lan0', mac: '02:00:00:00:00:01' },
      { name: 'eth0', mac: '02:00:00:00:00:02', sandbox: netns.path },
    ],
    ips: [
      { ...(isOld ? { version: '4' } : {}), address: `${ipv4}/24`, gateway: '10.250.0.254', interface: 1 },
      { ...(isOld ? { version: '6' } : {}), address: `${ipv6}/64`, gateway: 'fd10:250::fe', interface: 1 },
    ],
    routes: [{ dst: '0.0.0.0/0', gw: '10.250.0.254' }],
    dns: { nameservers: ['10.96.0.10'] },
    'example.com/other': { kept: [1, null, { deep: true }] },
  }
}

function versioned(version: Version): CniCall {
  return call({ cniVersion: version, prevResult: prevResult(version) })
}

/** Stdin and stdout as bytes. */
async function raw(command: string, text: string): Promise<string> {
  const { containerId = '', netns = '', ifname = '' } = call()
  const env = { CNI_CONTAINERID: containerId, CNI_NETNS: netns, CNI_IFNAME: ifname, CNI_PATH: '/opt/cni/bin' }
  return run(ambridgePath(), [], { env: { ...env, CNI_COMMAND: command }, input: text })
}

async function pods(): Promise<readonly PodStatus[]> {
  return (await mesh.status()).pods
}

/** Number of entries of the maps that ADD writes, and of the pins that it makes. */
async function traces(): Promise<Record<string, number>> {
  using store = new Store(join(mesh.bpffs, 'maps'))
  const { attachments, cgroups, pending, podAddrs, rules } = store
  const maps = { attachments, cgroups, pending, podAddrs, pods: store.pods, rules }
  const sizes = Object.entries(maps).map(([name, map]) => [name, map.keys().length])
  const { stdout } = await tryRun('ls', [join(mesh.bpffs, 'netns')])
  return { ...Object.fromEntries(sizes), pins: stdout.split('\n').filter(Boolean).length }
}

/** The mesh has one proxy cgroup, and nothing else but pods. */
const nothing = { attachments: 0, cgroups: 1, pending: 0, podAddrs: 0, pods: 0, rules: 0, pins: 0 }

describe('versions', () => {
  test.for(versions)('[%s] ADD enrolls the pod and prints prevResult as it came', async (version) => {
    const request = versioned(version)
    const printed = await raw('ADD', JSON.stringify(request.conf))
    expect(printed).toBe(`${JSON.stringify(prevResult(version))}\n`)
    const { ipv4, ipv6 } = mesh.host(0)
    const [pod] = await pods()
    expect(pod).toMatchObject({ containerId: request.containerId, mode: 'ambient', alive: true })
    expect(pod?.addresses).toEqual(expect.arrayContaining([ipv4, ipv6]))
  })

  test.for(versions)('[%s] DEL takes everything back and prints nothing', async (version) => {
    await cni('ADD', versioned(version))
    expect(await raw('DEL', JSON.stringify(versioned(version).conf))).toBe('')
    expect(await traces()).toEqual(nothing)
  })

  test.for(['0.4.0', '1.0.0', '1.1.0'] as const)(
    '[%s] CHECK finds nothing wrong after ADD',
    async (version) => {
      await cni('ADD', versioned(version))
      expect(await raw('CHECK', JSON.stringify(versioned(version).conf))).toBe('')
    },
  )

  test.for([
    ['CHECK', '0.3.0', '0.4.0'],
    ['CHECK', '0.3.1', '0.4.0'],
    ['GC', '1.0.0', '1.1.0'],
    ['STATUS', '1.0.0', '1.1.0'],
  ] as const)('%s is refused in version %s: it came with %s', async ([command, version, first]) => {
    expect(await tryCni(command, versioned(version))).toMatchObject({
      code: 1,
      output: {
        cniVersion: version,
        code: 1,
        msg: `CNI version ${version} has no ${command}`,
        details: `${command} exists from ${first} on: raise cniVersion in the network configuration`,
      },
    })
  })

  test('VERSION names every version, whatever is on stdin', async () => {
    const { stdout, code } = await tryRun(ambridgePath(), [], { env: { CNI_COMMAND: 'VERSION' }, input: '{' })
    expect({ code, answer: JSON.parse(stdout) }).toEqual({
      code: 0,
      answer: { cniVersion: '1.1.0', supportedVersions: versions },
    })
  })

  test('[1.1.0] STATUS succeeds while the programs are loaded', async () => {
    expect(await raw('STATUS', JSON.stringify(call({ cniVersion: '1.1.0' }).conf))).toBe('')
  })

  test('[1.1.0] STATUS does not keep a node from starting the agent that is to load the programs', async () => {
    const conf = { ...call({ cniVersion: '1.1.0' }).conf, bpffs: '/sys/fs/bpf/ambt-not-there' }
    expect(await raw('STATUS', JSON.stringify({ ...conf, enrollment: { source: 'agent' } }))).toBe('')
  })

  test.for(['cni.dev/valid-attachments', 'cni.dev/attachments'])(
    '[1.1.0] GC takes back what the list %s does not have',
    async (key) => {
      await cni('ADD', { ...call(), containerId: 'kept' })
      await cni('ADD', { ...call(), containerId: 'stale', netns: mesh.host(1).netns.path })
      await cni('GC', call({ cniVersion: '1.1.0', [key]: [{ containerID: 'kept', ifname: 'eth0' }] }))
      expect((await pods()).map(({ containerId }) => containerId)).toEqual(['kept'])
      expect(await traces()).toMatchObject({ attachments: 1, pods: 1, pins: 1 })
    },
  )
})

test('ADD keeps the digits of numbers that a double cannot hold', async () => {
  const result = '{"cniVersion":"1.0.0","exact":[9007199254740993,-1.10,1e400],"ips":[]}'
  const conf = JSON.stringify(call().conf).replace(/}$/, `,"prevResult":${result}}`)
  const printed = await raw('ADD', conf)
  expect(printed).toContain('9007199254740993')
  expect(printed).toContain('1e400')
})

test('ADD by hand, without prevResult, finds the addresses in the netns', async () => {
  expect(await cni('ADD', call())).toEqual({ cniVersion: '1.0.0' })
  const [pod] = await pods()
  const { ipv4, ipv6 } = mesh.host(0)
  expect(pod?.addresses).toEqual(expect.arrayContaining([ipv4, ipv6]))
})

describe('static enrollment', () => {
  const statically = (fields: object) => ({ enrollment: { source: 'static', ...fields } })
  const inNamespace = (namespace: string) => ({
    CNI_ARGS: `K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=cart`,
  })
  const annotated = (annotations: object) => ({
    runtimeConfig: { 'io.kubernetes.cri.pod-annotations': annotations },
  })

  test.for([
    ['all', statically({ all: true }), 'other', true],
    [
      'all, but the namespace is excluded',
      { ...statically({ all: true }), excludeNamespaces: ['shop'] },
      'shop',
      false,
    ],
    ['the namespace', statically({ namespaces: ['shop'] }), 'shop', true],
    ['another namespace', statically({ namespaces: ['shop'] }), 'other', false],
    [
      'redirection: enabled',
      { ...statically({}), ...annotated({ 'ambient.istio.io/redirection': 'enabled' }) },
      'shop',
      true,
    ],
    [
      'dataplane-mode: ambient',
      { ...statically({}), ...annotated({ 'istio.io/dataplane-mode': 'ambient' }) },
      'shop',
      true,
    ],
    [
      'annotations that are not looked at',
      { ...statically({ annotations: false }), ...annotated({ 'istio.io/dataplane-mode': 'ambient' }) },
      'shop',
      false,
    ],
    ['nothing', statically({}), 'shop', false],
  ] as const)('by %s', async ([, conf, namespace, isEnrolled]) => {
    await cni('ADD', { ...call(conf), env: inNamespace(namespace) })
    expect((await pods()).map((pod) => [pod.namespace, pod.name])).toEqual(
      isEnrolled ? [[namespace, 'cart']] : [],
    )
  })

  test('a pod that is not enrolled needs no root, no bpffs and no netns', async () => {
    const conf = {
      ...statically({}),
      bpffs: '/nowhere/ambridge',
      logFile: '/nowhere/cni.log',
      prevResult: prevResult('1.0.0'),
    }
    for (const command of ['ADD', 'CHECK', 'DEL'] as const) {
      const answer = await asNobody(command, { ...call(), conf: { ...mesh.conf(), ...conf } })
      expect(answer).toEqual({ code: 0, output: command === 'ADD' ? prevResult('1.0.0') : undefined })
    }
  })
})

async function asNobody(command: string, { containerId = '', conf }: CniCall) {
  const env = {
    CNI_COMMAND: command,
    CNI_CONTAINERID: containerId,
    CNI_NETNS: '/nowhere',
    CNI_IFNAME: 'eth0',
    CNI_PATH: '/x',
  }
  const args = ['--reuid=65534', '--regid=65534', '--clear-groups', '--', ambridgePath()]
  const { code, stdout } = await tryRun('setpriv', args, { env, input: JSON.stringify(conf) })
  return { code, output: stdout === '' ? undefined : JSON.parse(stdout) }
}

describe("the pod's cgroup", () => {
  const uid = 'b4a7f1de-6a44-4e0e-9e1c-3b1f6c6f7f10'
  const slices = `kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${uid.replaceAll('-', '_')}.slice`

  /** ADD in a cgroup namespace, whose root is the cgroup of the mesh: the layout of a kubelet without one. */
  async function cgroupFoundBy(hints: { conf?: object; uid?: string }): Promise<string> {
    const { containerId = '', netns = '', conf } = call(hints.conf)
    const env = {
      ...{
        CNI_COMMAND: 'ADD',
        CNI_CONTAINERID: containerId,
        CNI_NETNS: netns,
        CNI_IFNAME: 'eth0',
        CNI_PATH: '/x',
      },
      CNI_ARGS: `K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart;K8S_POD_UID=${hints.uid ?? ''}`,
    }
    const script = `set -e; echo 0 > "$1/cgroup.procs"; exec unshare --mount --cgroup sh -c '
      set -e; mount -t tmpfs none /sys/fs/cgroup; mkdir /sys/fs/cgroup/unified
      mount -t cgroup2 none /sys/fs/cgroup/unified; exec "$0"' "$0"`
    await run('sh', ['-c', script, ambridgePath(), mesh.cgroup.dir], { env, input: JSON.stringify(conf) })
    const [pod] = await pods()
    return pod?.cgroupId ?? ''
  }

  test('is the one that the runtime names', async () => {
    await using named = mesh.cgroup.child('machine/some-pod')
    const conf = { runtimeConfig: { cgroupPath: '/machine/some-pod' } }
    expect(await cgroupFoundBy({ conf })).toBe(String(named.id))
  })

  test.for([
    ['cgroupfs', `kubepods/besteffort/pod${uid}`],
    ['cgroupfs, guaranteed', `kubepods/pod${uid}`],
    ['systemd', slices],
  ])("is found by the pod's UID in the layout of %s", async ([, path = '']) => {
    await using pod = mesh.cgroup.child(path)
    expect(await cgroupFoundBy({ uid })).toBe(String(pod.id))
  })

  test('outside the captured cgroup is refused: its connections would not be captured', async () => {
    await using outside = Cgroup.create()
    expect(await tryCni('ADD', call({ runtimeConfig: { cgroupPath: outside.path } }))).toMatchObject({
      code: 1,
      output: {
        code: 11,
        details: expect.stringContaining(
          `cgroup ${outside.dir} of the pod is outside of the captured cgroup`,
        ),
      },
    })
    expect(await traces()).toEqual(nothing)
  })

  test("in a proxy's is refused: its connections would pass the proxy by", async () => {
    await using inside = mesh.proxy.child('pod')
    expect(await tryCni('ADD', call({ runtimeConfig: { cgroupPath: inside.path } }))).toMatchObject({
      code: 1,
      output: {
        code: 11,
        details: expect.stringContaining(`cgroup ${inside.dir} of the pod is in a proxy's cgroup`),
      },
    })
    expect(await traces()).toEqual(nothing)
  })

  test('may be absent', async () => {
    expect(await cgroupFoundBy({ uid: '00000000-0000-0000-0000-000000000000' })).toBe('0')
  })
})

describe('DEL', () => {
  test('succeeds without netns, prevResult and interface, and takes everything back', async () => {
    await cni('ADD', call({ prevResult: prevResult('1.0.0') }))
    const { netns: _, ...rest } = call()
    await cni('DEL', rest)
    expect(await traces()).toEqual(nothing)
  })

  test('succeeds twice, and for what was never added', async () => {
    await cni('ADD', call())
    await cni('DEL', call())
    await cni('DEL', call())
    await cni('DEL', { ...call(), containerId: 'never-seen' })
    expect(await traces()).toEqual(nothing)
  })

  test('succeeds without programs and without bpffs', async () => {
    await cni('DEL', call({ bpffs: '/sys/fs/bpf/ambt-not-there' }))
    await cni('DEL', call({ bpffs: '/nowhere/at/all' }))
  })

  test('succeeds when the netns is gone, and takes everything back', async () => {
    const gone = await Netns.create('gone')
    await gone.ip(['link add eth0 type veth peer name peer0', 'addr add 10.99.0.9/24 dev eth0'])
    await cni('ADD', { ...call(), containerId: 'gone', netns: gone.path })
    await gone.dispose()
    await cni('DEL', { ...call(), containerId: 'gone', netns: gone.path })
    expect(await traces()).toEqual(nothing)
  })

  test('of an old sandbox leaves the new one of the same netns alone', async () => {
    await cni('ADD', { ...call(), containerId: 'old' })
    await cni('ADD', { ...call(), containerId: 'new' })
    await cni('DEL', { ...call(), containerId: 'old' })
    expect(await pods()).toMatchObject([{ containerId: 'new', alive: true }])
    await cni('CHECK', { ...call({ prevResult: prevResult('1.0.0') }), containerId: 'new' })
  })

  test('uses defaults for a configuration that is broken elsewhere', async () => {
    await cni('ADD', call())
    await cni('DEL', call({ mode: 'sideways', logLevel: 7 }))
    expect(await traces()).toEqual(nothing)
  })
})

test('a second ADD of the same attachment changes nothing', async () => {
  await cni('ADD', call())
  const [first] = await pods()
  await cni('ADD', call())
  expect(await pods()).toEqual([first])
})

describe('CHECK finds', () => {
  async function faultsOf(request: CniCall = call()): Promise<unknown> {
    const conf = { ...request.conf, prevResult: prevResult('1.0.0') }
    return (await tryCni('CHECK', { ...request, conf })).output
  }
  const fault = (what: string) => ({
    cniVersion: '1.0.0',
    code: 100,
    msg: `container ${mesh.host(0).netns.name} is not captured as it should be`,
    details: `${what}; delete the pod, so that it is enrolled anew`,
  })

  test('an attachment that was never added', async () => {
    expect(await faultsOf()).toEqual(fault('the attachment is not registered'))
  })

  test('a link that is gone', async () => {
    await cni('ADD', call())
    const [pod] = await pods()
    rmSync(join(mesh.bpffs, 'netns', pod?.link ?? ''))
    expect(await faultsOf()).toEqual(fault('inbound capture is not attached'))
  })

  test('a pod that is gone from the map', async () => {
    await cni('ADD', call())
    const [pod] = await pods()
    using store = new Store(join(mesh.bpffs, 'maps'))
    store.pods.delete(BigInt(pod?.netnsCookie ?? 0))
    expect(await faultsOf()).toEqual(fault('the pod is not in the map of enrolled pods'))
  })

  test('an address that is not registered', async () => {
    await cni('ADD', call())
    const { ipv4 } = mesh.host(0)
    const [pod] = await pods()
    using store = new Store(join(mesh.bpffs, 'maps'))
    store.podAddrs.delete({ netns: BigInt(pod?.netnsCookie ?? 0), addr: ipv4 })
    expect(await faultsOf()).toEqual(fault(`address ${ipv4} is not registered`))
  })

  test('another netns', async () => {
    await cni('ADD', call())
    const elsewhere = { ...call(), netns: mesh.host(1).netns.path }
    expect(await faultsOf(elsewhere)).toEqual(
      fault('the attachment is registered for another network namespace'),
    )
  })
})

describe('an ADD that fails leaves nothing behind, and the next one works:', () => {
  /** With the same message for each: the pod, and why. */
  async function expectRefusal(details: RegExp, code = 100): Promise<void> {
    const { code: exitCode, output } = await tryCni('ADD', call())
    expect({ exitCode, output }).toEqual({
      exitCode: 1,
      output: {
        cniVersion: '1.0.0',
        code,
        msg: `cannot enroll container ${mesh.host(0).netns.name}`,
        details: expect.stringMatching(details),
      },
    })
  }

  async function expectRecovery(): Promise<void> {
    expect(await traces()).toEqual(nothing)
    await cni('ADD', call())
    expect(await pods()).toMatchObject([{ alive: true }])
  }

  test('a directory in the place of the pin', async () => {
    const pin = join(mesh.bpffs, 'netns', attachmentPinName(mesh.host(0).netns.name, 'eth0'))
    mkdirSync(pin)
    try {
      await expectRefusal(/a directory/)
    } finally {
      rmdirSync(pin)
    }
    await expectRecovery()
  })

  test('no folder for the pin', async () => {
    const dir = join(mesh.bpffs, 'netns')
    rmdirSync(dir)
    try {
      await expectRefusal(/pin .*: ENOENT/)
    } finally {
      mkdirSync(dir)
    }
    await expectRecovery()
  })

  test.for(['pods', 'attachments', 'podAddrs', 'pending'] as const)('map %s is full', async (name) => {
    using store = new Store(join(mesh.bpffs, 'maps'))
    const fillers = fill(store, name)
    try {
      await expectRefusal(/: E2BIG/)
    } finally {
      for (const forget of fillers) forget()
    }
    await expectRecovery()
  })

  test('a map that is not there', async () => {
    const [map, hidden] = [join(mesh.bpffs, 'maps/pods'), join(mesh.bpffs, 'maps/hidden')]
    renameSync(map, hidden)
    try {
      await expectRefusal(/open pin .*pods: ENOENT/)
    } finally {
      renameSync(hidden, map)
    }
    await expectRecovery()
  })

  test('no right to enter the netns', async () => {
    const { containerId = '', netns = '', conf } = call()
    const env = {
      CNI_COMMAND: 'ADD',
      CNI_CONTAINERID: containerId,
      CNI_NETNS: netns,
      CNI_IFNAME: 'eth0',
      CNI_PATH: '/x',
    }
    const args = ['--bounding-set=-sys_admin', '--', ambridgePath()]
    const { code, stdout } = await tryRun('setpriv', args, { env, input: JSON.stringify(conf) })
    expect({ code, output: JSON.parse(stdout) }).toMatchObject({
      code: 1,
      output: {
        code: 100,
        details: expect.stringMatching(/: EPERM; the container runtime must run the plugin as root/),
      },
    })
    await expectRecovery()
  })
})

/** Adds entries of nobody until the map takes no more. The functions remove them again. */
function fill(store: Store, name: 'pods' | 'attachments' | 'podAddrs' | 'pending'): (() => void)[] {
  const forgets: (() => void)[] = []
  for (let i = 1n; ; i++) {
    try {
      forgets.push(fillers[name](store, (0xffffn << 48n) + i))
    } catch (err) {
      if ((err as { code?: string }).code === 'E2BIG') return forgets
      throw err
    }
  }
}

const somePod = {
  ...{ own4: '', own6: '', proxyMark: 0, proxyMarkMask: 0, proxyUid: 0, proxyGid: 0 },
  ...{ outboundPort: 0, inboundPort: 0, hbonePort: 0, dnsPort: 0, mode: 0, identity: 0, flags: 0 },
}
const someAttachment = {
  ...{ netnsDev: 0n, netnsIno: 0n, cgroupId: 0n, addrs: [] },
  ...{ podUid: '', podNamespace: '', podName: '' },
}

const fillers = {
  pods: (store: Store, netns: bigint) => {
    store.pods.set(netns, somePod)
    return () => store.pods.delete(netns)
  },
  attachments: (store: Store, netns: bigint) => {
    const key = { containerId: `filler-${netns}`, ifname: 'eth0' }
    store.attachments.set(key, { ...someAttachment, netns })
    return () => store.attachments.delete(key)
  },
  podAddrs: (store: Store, netns: bigint) => {
    const key = { netns, addr: '192.0.2.1' }
    store.podAddrs.set(key, netns)
    return () => store.podAddrs.delete(key)
  },
  pending: (store: Store, netns: bigint) => {
    store.pending.set(netns, 0n)
    return () => store.pending.delete(netns)
  },
}

describe('a bpffs that is read-only', () => {
  const dir = `/run/ambt${process.pid}-bpffs`
  const bpffs = join(dir, 'ambridge')
  const remount = (mode: 'ro' | 'rw') => run('mount', ['-o', `remount,${mode}`, dir])

  beforeAll(async () => {
    mkdirSync(dir)
    await run('mount', ['-t', 'bpf', 'bpf', dir])
    await ambridge(['load', '--bpffs', bpffs, '--cgroup', mesh.cgroup.dir])
  })
  afterAll(async () => {
    await run('umount', [dir])
    rmdirSync(dir)
  })

  test('is named in the error; once it is writable ADD and DEL work', async () => {
    await remount('ro')
    expect(await tryCni('ADD', call({ bpffs }))).toMatchObject({
      code: 1,
      output: { code: 100, details: `open pin ${bpffs}/maps/settings: EROFS` },
    })
    await remount('rw')
    await cni('ADD', call({ bpffs }))
    await remount('ro')
    expect(await tryCni('DEL', call({ bpffs }))).toMatchObject({ code: 1, output: { code: 100 } })
    await remount('rw')
    await cni('DEL', call({ bpffs }))
    const { pods } = await ambridgeJson<Status>(['status', '--bpffs', bpffs])
    expect(pods).toEqual([])
  })
})
