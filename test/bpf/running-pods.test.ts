// SPDX-License-Identifier: Apache-2.0
/** What is found of pods that run already: real processes in real network namespaces and cgroups. */
import { randomBytes, randomUUID } from 'node:crypto'
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { cgroupDirOf } from '../../src/linux/cgroup.ts'
import { Netns as OpenNetns } from '../../src/linux/netns.ts'
import { podProcesses } from '../../src/linux/procs.ts'
import { findRunningPod } from '../../src/pods/find.ts'
import { Cgroup, cgroup2Root } from '../support/cgroup.ts'
import { run, tryRun, waitFor } from '../support/exec.ts'
import { Netns } from '../support/netns.ts'
import { type OwnedDaemon, startOwned, type Where } from '../support/sock.ts'

const hash = '4f1c6b1b2a0d3c5e7f9a8b6c4d2e0f1a'
const [ipv4, ipv6] = ['10.250.7.1', 'fd10:250:7::1']

let netns: Netns
let kubepods: Cgroup
let daemons: OwnedDaemon[]

beforeAll(async () => {
  netns = await Netns.create()
  await netns.ip([`addr add ${ipv4}/32 dev lo`, `addr add ${ipv6}/128 dev lo`])
})
afterAll(() => netns?.dispose())

beforeEach(() => {
  kubepods = Cgroup.create(`/ambt${process.pid}-kubepods`)
  daemons = []
})
afterEach(async () => {
  for (const daemon of daemons) await daemon.stop()
  await kubepods.dispose()
})

const newId = () => randomBytes(32).toString('hex')

/** A process that is there, in a container of the pod. Gives its id. */
async function startIn(where: Omit<Where, 'cgroupDir'>, uid: string, container: string): Promise<number> {
  const { dir } = kubepods.child(`besteffort/pod${uid}/${container}`)
  const owned = await startOwned('container', { ...where, cgroupDir: dir }, ['sleep', '600'])
  daemons.push(owned)
  const { pid } = owned.daemon
  await waitFor('sleep', () => readFileSync(`/proc/${pid}/comm`, 'utf8') === 'sleep\n')
  return pid
}

const ofPod = (uid: string) => podProcesses().filter(({ podUid }) => podUid === uid)

test('podProcesses() finds a process with its pod, container, cgroup and netns', async () => {
  const [uid, id] = [randomUUID(), newId()]
  const pid = await startIn({ netns }, uid, id)
  using target = OpenNetns.open(netns.path)
  expect(ofPod(uid)).toEqual([
    {
      pid,
      podUid: uid,
      containerId: id,
      cgroup: `${kubepods.path}/besteffort/pod${uid}/${id}`,
      netns: target.identity,
      startTime: expect.any(BigInt),
    },
  ])
})

test('podProcesses() leaves out what is in the own netns', async () => {
  const uid = randomUUID()
  await startIn({}, uid, newId())
  expect(ofPod(uid)).toEqual([])
})

test('podProcesses() gives the oldest process of a pod, wherever its container is', async () => {
  const [uid, sandbox] = [randomUUID(), newId()]
  const pid = await startIn({ netns }, uid, sandbox)
  await startIn({ netns }, uid, newId())
  await startIn({ netns }, uid, newId())
  expect(ofPod(uid)).toMatchObject([{ pid, containerId: sandbox }])
  await daemons.shift()?.stop()
  expect(ofPod(uid)).toMatchObject([{ pid: daemons[0]?.daemon.pid }])
})

test('podProcesses() does not take a zombie for a process', async () => {
  const [uid, id] = [randomUUID(), newId()]
  const { dir } = kubepods.child(`besteffort/pod${uid}/${id}`)
  // Its parent, which does not wait for it, is in the own netns.
  const script = `nsenter --net=${netns.path} true & echo $!; exec sleep 600`
  const owned = await startOwned('zombie', { cgroupDir: dir }, ['sh', '-c', script])
  daemons.push(owned)
  await waitFor('the zombie', () => {
    const pid = owned.log().trim()
    return pid !== '' && readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ')
  })
  expect(ofPod(uid)).toEqual([])
})

test('findRunningPod() finds the netns that has an address of the pod, and the oldest container in it', async () => {
  const [uid, sandbox, maker] = [randomUUID(), newId(), newId()]
  // Older, and a pod's own affair.
  await using inner = await Netns.create()
  await startIn({ netns: inner }, uid, maker)
  await startIn({ netns }, uid, sandbox)
  await startIn({ netns }, uid, newId())
  using target = OpenNetns.open(netns.path)
  for (const ips of [[ipv4, ipv6], [ipv4], ['FD10:250:7:0::0001'], ['10.0.0.1', `::ffff:${ipv4}`]]) {
    const found = findRunningPod(['unknown', uid], ips)
    using _netns = found?.netns
    expect(found?.netns.identity, String(ips)).toEqual(target.identity)
    expect(found).toMatchObject({
      containerId: sandbox,
      cgroup: `${kubepods.path}/besteffort/pod${uid}/${sandbox}`,
    })
  }
})

test('findRunningPod() finds a static pod by the hash of its configuration', async () => {
  await startIn({ netns }, hash, newId())
  const found = findRunningPod([randomUUID(), hash], [ipv4])
  using _netns = found?.netns
  expect(found).toBeDefined()
})

test('findRunningPod() finds no pod without addresses, with others, of another uid, and none that has ended', async () => {
  const uid = randomUUID()
  await startIn({ netns }, uid, newId())
  expect(findRunningPod([uid], [])).toBeUndefined()
  expect(findRunningPod([uid], ['10.250.7.2'])).toBeUndefined()
  expect(findRunningPod([randomUUID()], [ipv4])).toBeUndefined()
  const earlier = podProcesses()
  await daemons[0]?.stop()
  expect(findRunningPod([uid], [ipv4], earlier)).toBeUndefined()
})

test('findRunningPod() is not misled by another process that got the id', async () => {
  const uid = randomUUID()
  await startIn({ netns }, uid, newId())
  const stale = podProcesses().map((each) => ({ ...each, pid: process.pid }))
  expect(findRunningPod([uid], [ipv4, '127.0.0.1'], stale)).toBeUndefined()
})

test('Netns.fromFd() takes a descriptor over, and closes one that is no network namespace', () => {
  const fd = openSync(netns.path, 'r')
  {
    using target = OpenNetns.fromFd(fd, 'of a test')
    using same = OpenNetns.open(netns.path)
    expect([target.fd, target.identity]).toEqual([fd, same.identity])
  }
  expect(() => fstatSync(fd)).toThrow('EBADF')
  for (const path of ['/dev/null', '/proc/self/ns/mnt', '/']) {
    const other = openSync(path, 'r')
    const message = 'the descriptor of pod shop/web is not a network namespace: EINVAL'
    expect(() => OpenNetns.fromFd(other, 'the descriptor of pod shop/web'), path).toThrow(message)
    expect(() => closeSync(other), path).toThrow('EBADF')
  }
})

test('Netns.duplicate() outlives the original, with a lock of its own', async () => {
  const isFree = async () => (await tryRun('flock', ['-n', netns.path, 'true'])).code === 0
  const original = OpenNetns.open(netns.path)
  using copy = original.duplicate()
  original.lock()
  expect(await isFree()).toBe(false)
  original[Symbol.dispose]()
  expect(await isFree()).toBe(true)
  using same = OpenNetns.open(netns.path)
  expect([copy.cookie(), copy.identity]).toEqual([same.cookie(), same.identity])
})

test('cgroupDirOf() finds every cgroup of /proc', () => {
  const { dir, path } = kubepods.child('besteffort/pod1')
  expect(cgroupDirOf(cgroup2Root(), path)).toBe(dir)
  expect(cgroupDirOf(cgroup2Root(), '/')).toBe(cgroup2Root())
  expect(cgroupDirOf(cgroup2Root(), `${path}/gone`)).toBeUndefined()
  expect(cgroupDirOf(cgroup2Root(), `/..${path}`)).toBeUndefined()
  expect(cgroupDirOf('/proc', path)).toBeUndefined()
})

const cgroupModule = fileURLToPath(new URL('../../src/linux/cgroup.ts', import.meta.url))
const askCgroups = `
import { readFileSync } from 'node:fs'
import { cgroup2Root, cgroupDirOf } from '${cgroupModule}'
const root = cgroup2Root()
const dirs = process.argv.slice(1).map((pid) => {
  const path = readFileSync('/proc/' + pid + '/cgroup', 'utf8').match(/^0::(.*)$/m)[1]
  return [path, cgroupDirOf(root, path) ?? null]
})
console.log(JSON.stringify({ root, dirs }))
`

test.for(['', '/inner'])(
  'cgroupDirOf() finds them from a cgroup namespace of its own, too, process in its "%s"',
  async (below) => {
    const uid = randomUUID()
    const [agent, ztunnel] = [newId(), newId()]
    const own = kubepods.child(`besteffort/pod${uid}/${agent}`)
    const inner = kubepods.child(`besteffort/pod${uid}/${agent}/inner`)
    // Others of that depth.
    kubepods.child(`besteffort/pod${randomUUID()}/${newId()}/inner`)
    const other = await startIn({ netns }, uid, ztunnel)
    const top = await startOwned('top', { cgroupDir: kubepods.dir }, ['sleep', '600'])
    daemons.push(top)
    await waitFor('sleep', () => readFileSync(`/proc/${top.daemon.pid}/comm`, 'utf8') === 'sleep\n')
    const script = [
      `echo $$ > ${own.dir}/cgroup.procs`,
      `exec unshare -C sh -c 'echo $$ > ${own.dir}${below}/cgroup.procs; exec "$@"' sh "$@"`,
    ].join('\n')
    const pids = ['self', other, top.daemon.pid].map(String)
    const node = [process.execPath, '--input-type=module', '-e', askCgroups, '--', ...pids]
    const output = await run('sh', ['-ec', script, 'sh', ...node])
    expect(JSON.parse(output)).toEqual({
      root: cgroup2Root(),
      dirs: [
        [below === '' ? '/' : below, below === '' ? own.dir : inner.dir],
        [`/../${ztunnel}`, `${kubepods.dir}/besteffort/pod${uid}/${ztunnel}`],
        ['/../../..', kubepods.dir],
      ],
    })
  },
)
