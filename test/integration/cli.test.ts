// SPDX-License-Identifier: Apache-2.0
/** `ambridge load`, `status` and `unload`, as an administrator runs them: first, again, interrupted, at once, under load. */
import { existsSync, readdirSync, rmdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { captureHooks, proxyHooks } from '../../installer/programs/hooks.ts'
import type { Step } from '../../installer/programs/report.ts'
import type { Status } from '../../installer/programs/status.ts'
import { Store } from '../../src/bpf/store.ts'
import { ambridge, ambridgeJson, ambridgePath, cni, tryAmbridge, tryCni } from '../support/ambridge.ts'
import { Cgroup, cgroup2Root } from '../support/cgroup.ts'
import { own } from '../support/cleanup.ts'
import { run, startDaemon, tryRun } from '../support/exec.ts'
import { Mesh } from '../support/mesh.ts'
import { Netns } from '../support/netns.ts'
import { connectCrowd } from '../support/sock.ts'

let tests = 0
let bpffs: string
let cgroup: Cgroup
let removePins: () => Promise<void>

beforeEach(async () => {
  bpffs = `/sys/fs/bpf/ambt${process.pid}-cli${++tests}`
  if (!existsSync('/sys/fs/bpf')) await run('mount', ['-t', 'bpf', 'bpf', '/sys/fs/bpf'])
  removePins = own({ kind: 'dir', path: bpffs })
  cgroup = Cgroup.create()
})
afterEach(async () => {
  await removePins()
  await cgroup.dispose()
})

const pins = () => ['--bpffs', bpffs]

/** In the cgroup of the test, unless told otherwise. */
function load(...args: string[]): Promise<Step[]> {
  return ambridgeJson<Step[]>(['load', ...pins(), '--cgroup', cgroup.dir, ...args])
}

const unload = () => ambridgeJson<Step[]>(['unload', ...pins()])
const status = () => ambridgeJson<Status>(['status', ...pins()])

/** Program and cgroup of each link. */
async function attachedTo(): Promise<string[]> {
  const { links } = await status()
  expect(links.filter(({ alive }) => !alive)).toEqual([])
  return links.map(({ program, cgroup: dir }) => `${program} ${dir}`).sort()
}

function hooksOn(dir: string, hooks: typeof captureHooks): string[] {
  return hooks.map(({ program }) => `${program.replace('ambridge_', '')} ${dir}`)
}

async function refusal(...args: string[]): Promise<{ code: number; stderr: string }> {
  const { code, stderr } = await tryAmbridge(['load', ...pins(), ...args])
  return { code, stderr }
}

describe('load', () => {
  test('says what it did, and the second time that it was there', async () => {
    const first = await load()
    const links = await attachedTo()
    expect(links).toEqual(hooksOn(cgroup.dir, captureHooks).sort())
    expect(first.filter(({ kind }) => kind === 'link')).toHaveLength(captureHooks.length)
    expect(first).toContainEqual({ kind: 'directory', name: bpffs, result: 'made' })
    expect(first.find(({ kind }) => kind === 'program')?.result).toBe('loaded')
    const second = await load()
    expect(second.filter(({ result }) => !['already there', 'set'].includes(result))).toEqual([])
    expect(await attachedTo()).toEqual(links)
  })

  test('keeps what is not told again', async () => {
    await load('--proxy-identity', 'mark', '--probes', 'uid', '--kubelet-uid', '1001')
    const before = await status()
    await ambridge(['load', ...pins()])
    const after = await status()
    expect(after.settings).toEqual(before.settings)
    expect(after.settings).toMatchObject({ proxyIdentity: 'mark', probes: 'uid', kubeletUid: 1001 })
    expect(after.links).toEqual(before.links)
  })

  test('takes the cgroup as a directory or as in /proc/PID/cgroup', async () => {
    await load()
    const links = await attachedTo()
    await ambridge(['load', ...pins(), '--cgroup', cgroup.path])
    expect(await attachedTo()).toEqual(links)
  })

  test('moves to another cgroup, and leaves nothing on the first', async () => {
    await load()
    const other = cgroup.child('other')
    await load('--cgroup', other.dir)
    expect(await attachedTo()).toEqual(hooksOn(other.dir, captureHooks).sort())
  })

  test.for(['auto', cgroup2Root()])('attaches to the root of the hierarchy: --cgroup %s', async (choice) => {
    try {
      await ambridge(['load', ...pins(), '--cgroup', choice])
      expect(await attachedTo()).toEqual(hooksOn(cgroup2Root(), captureHooks).sort())
    } finally {
      await unload()
    }
  })

  test('gives a proxy cgroup the hooks of a proxy; more of them add up', async () => {
    const [one, two] = [cgroup.child('one'), cgroup.child('two')]
    await load('--proxy-cgroup', one.dir)
    await load('--proxy-cgroup', two.dir)
    const wanted = [
      hooksOn(one.dir, proxyHooks),
      hooksOn(two.dir, proxyHooks),
      hooksOn(cgroup.dir, captureHooks),
    ]
    expect(await attachedTo()).toEqual(wanted.flat().sort())
    const { proxies } = await status()
    expect(proxies).toHaveLength(2)
    expect(proxies).toContainEqual({ cgroupId: String(one.id), cgroup: one.dir, alive: true })
    expect(proxies).toContainEqual({ cgroupId: String(two.id), cgroup: two.dir, alive: true })
  })

  test('takes several proxy cgroups at once, and forgets one that is gone', async () => {
    const [one, two] = [cgroup.child('one'), cgroup.child('two')]
    await load('--proxy-cgroup', one.dir, '--proxy-cgroup', two.dir)
    await two.dispose()
    const steps = await load()
    expect(steps).toContainEqual(expect.objectContaining({ kind: 'proxy', result: 'removed: it is gone' }))
    expect((await status()).proxies).toEqual([{ cgroupId: String(one.id), cgroup: one.dir, alive: true }])
    await attachedTo()
  })

  test('gives a proxy outside the capture cgroup every hook', async () => {
    await using outside = Cgroup.create()
    await load('--proxy-cgroup', outside.dir)
    expect(await attachedTo()).toEqual(
      [hooksOn(cgroup.dir, captureHooks), hooksOn(outside.dir, [...captureHooks, ...proxyHooks])]
        .flat()
        .sort(),
    )
  })

  test('with --proxy-identity mark puts the hooks of a proxy where capture is', async () => {
    await load('--proxy-identity', 'mark')
    expect(await attachedTo()).toEqual(hooksOn(cgroup.dir, [...captureHooks, ...proxyHooks]).sort())
    expect((await status()).settings).toMatchObject({ proxyIdentity: 'mark' })
  })
})

describe('load refuses, attaches nothing and says what to do:', () => {
  const advice = () => `expected a directory below ${cgroup2Root()}, or a path as in /proc/PID/cgroup`

  test.for(['/no/such/cgroup', tmpdir(), '/etc/hostname', '../..'])('--cgroup %s', async (path) => {
    expect(await refusal('--cgroup', path)).toEqual({
      code: 1,
      stderr: `ambridge: no such cgroup: ${path}\n  --cgroup: ${advice()}\n`,
    })
    expect(remains()).toEqual([])
  })

  test('--proxy-cgroup of nothing', async () => {
    expect(await refusal('--cgroup', cgroup.dir, '--proxy-cgroup', '/nobody')).toEqual({
      code: 1,
      stderr: `ambridge: no such cgroup: /nobody\n  --proxy-cgroup: ${advice()}\n`,
    })
    expect(remains()).toEqual([])
  })

  test('a netns that is none for the shared proxy', async () => {
    const { code, stderr } = await refusal('--cgroup', cgroup.dir, '--shared-proxy-netns', '/etc/hostname')
    expect({ code, stderr }).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('/etc/hostname is not a network namespace'),
    })
    expect(remains()).toEqual([])
  })

  test('a shared proxy without an address', async () => {
    await using proxy = await Netns.create('noaddr')
    expect(await refusal('--cgroup', cgroup.dir, '--shared-proxy-netns', proxy.path)).toEqual({
      code: 1,
      stderr: `ambridge: --shared-proxy-netns: ${proxy.path} has no address\n  start the proxy pod first: captured connections are sent to its address\n`,
    })
    expect(remains()).toEqual([])
  })

  test('a folder that is not in a bpffs', async () => {
    const { code, stderr } = await tryAmbridge(['load', '--bpffs', `${tmpdir()}/ambridge`])
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: `ambridge: bpffs is not mounted at ${tmpdir()}\n  mount it: mount -t bpf bpf ${tmpdir()}\n`,
    })
    expect(existsSync(`${tmpdir()}/ambridge`)).toBe(false)
  })

  test('another user than root', async () => {
    const args = ['--reuid=65534', '--clear-groups', '--', ambridgePath(), 'load', ...pins()]
    const { code, stderr } = await tryRun('setpriv', args)
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr:
        'ambridge: the kernel does not allow this process to load eBPF programs\n' +
        '  run it as root, with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN, and without kernel lockdown\n',
    })
  })

  test('root without the right to load programs', async () => {
    const args = ['--bounding-set=-sys_admin,-bpf', '--', ambridgePath(), 'load', ...pins()]
    const { code, stderr } = await tryRun('setpriv', args)
    expect({ code, stderr }).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('run it as root, with CAP_BPF'),
    })
    expect(remains()).toEqual([])
  })

  test.for([
    [['--probes', 'never'], "option '--probes <mode>' argument 'never' is invalid"],
    [['--kubelet-uid', '-1x'], "option '--kubelet-uid <uid>' argument '-1x' is invalid"],
    [['--proxy-identity', 'name'], "option '--proxy-identity <kind>' argument 'name' is invalid"],
    [['--colour'], "unknown option '--colour'"],
  ] as const)('a wrong command line, with exit code 2: %s', async ([args, message]) => {
    const { code, stderr } = await refusal(...args)
    expect(code).toBe(2)
    expect(stderr).toContain(`ambridge: ${message}`)
    expect(existsSync(bpffs)).toBe(false)
  })
})

/** Links, and pods, of a load that went wrong. */
function remains(): string[] {
  return existsSync(bpffs) ? readdirSync(bpffs) : []
}

describe('status', () => {
  test('of a node without programs', async () => {
    const nothing = { loaded: false, bpffs, programs: [], links: [], maps: [], proxies: [], pods: [] }
    expect(await status()).toEqual(nothing)
    expect(await ambridge(['status', ...pins()])).toBe(
      `not loaded: nothing in ${bpffs}\n  run: ambridge load\n`,
    )
  })

  test('has programs, links, maps, settings and pods', async () => {
    await using pod = await podNetns()
    await load()
    await add(pod)
    const number = expect.any(Number)
    const facts = await status()
    expect(facts).toMatchObject({ loaded: true, bpffs, proxies: [] })
    for (const program of facts.programs) {
      const tag = expect.stringMatching(/^[0-9a-f]{16}$/)
      expect(program).toEqual({
        name: expect.stringMatching(/^ambridge_/),
        id: number,
        tag,
        jitedBytes: number,
        runCount: number,
        runTimeNs: number,
      })
    }
    for (const map of facts.maps) {
      expect(map).toEqual({
        name: expect.any(String),
        id: number,
        type: number,
        keySize: number,
        valueSize: number,
        maxEntries: number,
        flags: number,
      })
    }
    for (const link of facts.links) {
      expect(link).toEqual({
        name: expect.any(String),
        program: expect.any(String),
        alive: true,
        id: number,
        programId: number,
        cgroup: cgroup.dir,
      })
    }
    expect(facts.settings).toMatchObject({
      proxyIdentity: 'cgroup',
      sharedProxy: null,
      probes: 'off',
      kubeletUid: 0,
      sidecar: false,
    })
    const digits = expect.stringMatching(/^\d+$/)
    expect(facts.pods).toEqual([
      {
        ...{ containerId: 'pod', ifname: 'eth0', namespace: 'shop', name: 'cart', uid: '' },
        ...{
          netnsCookie: digits,
          netnsInode: digits,
          cgroupId: '0',
          mode: 'ambient',
          proxyIdentity: 'cgroup',
        },
        ...{ addresses: expect.arrayContaining(['10.99.0.1']), link: 'pod:eth0', alive: true, counters: {} },
      },
    ])
  })

  test('shows a severed link as not alive, and the next load repairs it', async () => {
    const doomed = cgroup.child('doomed')
    await load('--cgroup', doomed.dir)
    rmdirSync(doomed.dir)
    const { links } = await status()
    expect(links.map(({ alive }) => alive)).toEqual(captureHooks.map(() => false))
    expect(await ambridge(['status', ...pins()])).toContain('a cgroup that is gone: SEVERED')
    const enrollment = { source: 'static', all: true }
    const conf = { cniVersion: '1.1.0', name: 'pods', type: 'ambridge', bpffs, enrollment }
    expect((await tryCni('STATUS', { conf })).output).toMatchObject({
      code: 51,
      msg: 'eBPF program connect4 is attached to no cgroup that is there',
    })
    const again = cgroup.child('doomed')
    await load('--cgroup', again.dir)
    expect(await attachedTo()).toEqual(hooksOn(again.dir, captureHooks).sort())
  })
})

describe('unload', () => {
  test('removes everything, pods included, and again succeeds', async () => {
    await using pod = await podNetns()
    await load('--proxy-cgroup', cgroup.child('proxy').dir)
    await add(pod)
    const ids = (await status()).programs.map((program) => (program as { id: number }).id)
    const steps = await unload()
    expect(steps).toContainEqual({ kind: 'link', name: 'pod:eth0', result: 'removed' })
    expect(existsSync(bpffs)).toBe(false)
    expect(await status()).toMatchObject({ loaded: false })
    expect(await unload()).toEqual([])
    expect(await ambridge(['unload', ...pins()])).toBe('nothing is loaded\n')
    for (const id of ids) await expectGone(id)
  })

  test('then DEL of a pod that was enrolled succeeds', async () => {
    await using pod = await podNetns()
    await load()
    await add(pod)
    await unload()
    await cni('DEL', callFor(pod))
  })
})

/** The kernel frees a program some milliseconds after its last pin. */
async function expectGone(programId: number): Promise<void> {
  await expect
    .poll(async () => (await tryRun('bpftool', ['prog', 'show', 'id', String(programId)])).code, {
      timeout: 5_000,
    })
    .not.toBe(0)
}

async function podNetns(): Promise<Netns> {
  const netns = await Netns.create('pod')
  await netns.ip([
    'link add eth0 type veth peer name peer0',
    'addr add 10.99.0.1/24 dev eth0',
    'link set eth0 up',
  ])
  return netns
}

function callFor({ path }: Netns) {
  const enrollment = { source: 'static', all: true }
  const conf = { cniVersion: '1.0.0', name: 'test', type: 'ambridge', bpffs, enrollment }
  const env = { CNI_ARGS: 'K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart' }
  return { containerId: 'pod', netns: path, ifname: 'eth0', conf, env }
}

const add = (netns: Netns) => cni('ADD', callFor(netns))

describe('load that is interrupted or not alone', () => {
  test('killed at any moment: the next load repairs', { timeout: 120_000 }, async () => {
    await using pod = await podNetns()
    const begin = Date.now()
    await load()
    const wholeMs = Date.now() - begin
    const wanted = await attachedTo()
    const { programs } = await status()
    for (let i = 0; i < 16; i++) {
      const isUpgrade = i % 2 === 1
      if (isUpgrade) pretendOlderObjects(bpffs)
      else await unload()
      await killLoadAfter(Math.random() * wholeMs)
      await load()
      expect(await attachedTo()).toEqual(wanted)
      expect(readdirSync(join(bpffs, 'progs'))).toHaveLength(programs.length)
      expect((await status()).pods.map(({ alive }) => alive)).toEqual(isUpgrade ? [true] : [])
      if (!isUpgrade) await add(pod)
    }
  })

  test('several at once: all succeed, and the state is that of one', async () => {
    await load()
    const wanted = await attachedTo()
    await unload()
    await Promise.all([load(), load(), load(), load()])
    expect(await attachedTo()).toEqual(wanted)
  })

  test('load and unload at once: both succeed, and all is there or nothing', async () => {
    await load()
    const wanted = await attachedTo()
    for (let i = 0; i < 10; i++) {
      await Promise.all([unload(), load(), unload(), load()])
      const { loaded } = await status()
      if (loaded) expect(await attachedTo()).toEqual(wanted)
      else expect(existsSync(bpffs)).toBe(false)
    }
  })
})

async function killLoadAfter(ms: number): Promise<void> {
  const args = ['load', ...pins(), '--cgroup', cgroup.dir]
  const daemon = startDaemon(ambridgePath(), args, { logFile: '/dev/null' })
  await new Promise((resolve) => setTimeout(resolve, ms))
  if (!daemon.hasExited()) process.kill(daemon.pid, 'SIGKILL')
  await daemon.exited
}

/** What an upgrade finds: programs of another build. */
function pretendOlderObjects(dir: string): void {
  using store = new Store(join(dir, 'maps'))
  const settings = store.settings.get(0)
  if (settings === undefined) throw new Error('the settings map is empty')
  store.settings.set(0, { ...settings, objects: (settings.objects ^ 1) >>> 0 })
}

test('an upgrade swaps programs in: no connection is refused, none is uncaptured', {
  timeout: 120_000,
}, async () => {
  await using mesh = await Mesh.create()
  const [client, server] = [mesh.host(0), mesh.host(1)]
  const standin = await mesh.startStandin()
  const pod = await mesh.enroll(client)
  await mesh.serve(server, 'app', [8080])
  const before = await mesh.status()
  let isDone = false
  const total = { count: 0, ok: 0, errors: {} }
  const dialling = (async () => {
    while (!isDone) {
      const { count, ok, errors } = await connectCrowd(mesh.at(client), server.ipv4, 8080, 50)
      Object.assign(total, {
        count: total.count + count,
        ok: total.ok + ok,
        errors: { ...total.errors, ...errors },
      })
    }
  })()
  try {
    for (let i = 0; i < 20; i++) {
      pretendOlderObjects(mesh.bpffs)
      const said = await mesh.load()
      expect(said).toContain('programs: upgraded')
      expect(said).toContain('pods 1 pods: upgraded')
    }
  } finally {
    isDone = true
    await dialling
  }
  expect(total).toEqual({ count: total.count, ok: total.count, errors: {} })
  expect(total.count).toBeGreaterThan(500)
  const captured = standin.connections().filter(({ original }) => original === `${server.ipv4}:8080`)
  expect(captured).toHaveLength(total.count)
  const after = await mesh.status()
  expect(after.links.map(({ name }) => name)).toEqual(before.links.map(({ name }) => name))
  expect(await mesh.statusOf(pod)).toMatchObject({ alive: true })
  const ids = ({ programs }: Status) => programs.map((program) => (program as { id: number }).id)
  expect(ids(after).filter((id) => ids(before).includes(id))).toEqual([])
})
