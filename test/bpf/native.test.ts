// SPDX-License-Identifier: Apache-2.0
/** The FFI layers against the real kernel. Own cgroup, netns and bpffs directory for each test. */
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { mapInfo, programInfo } from '../../src/bpf/info.ts'
import {
  attachToCgroup,
  attachToNetns,
  attachTypes,
  detachLink,
  isAlive,
  linkInfo,
  openPin,
  pin,
  updateLink,
} from '../../src/bpf/link.ts'
import { LoadError } from '../../src/bpf/load-log.ts'
import type { LoadedObject } from '../../src/bpf/loaded-object.ts'
import { openObject } from '../../src/bpf/object.ts'
import { type MapCodec, PinnedMap, perCpu } from '../../src/bpf/pinned-map.ts'
import { isBpffs } from '../../src/linux/bpffs.ts'
import { cgroup2Root, cgroupId } from '../../src/linux/cgroup.ts'
import { hostNetnsIdentity, isSameNetns, Netns as OpenNetns } from '../../src/linux/netns.ts'
import { SystemError } from '../../src/native.ts'
import { Cgroup, cgroup2Root as cgroup2RootOfKit } from '../support/cgroup.ts'
import { registerCleanup } from '../support/cleanup.ts'
import { run, startDaemon, tryRun, waitFor } from '../support/exec.ts'
import { Netns, veth } from '../support/netns.ts'

const refusedPort = 1
const otherPort = 2

let dir: string
let tiny: Buffer
let pinRoot: string
let unpin: () => Promise<void>

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'native-'))
  tiny = await compile('tiny')
  if (!isBpffs('/sys/fs/bpf')) await run('mount', ['-t', 'bpf', 'bpf', '/sys/fs/bpf'])
})
afterAll(() => rmSync(dir, { recursive: true }))

let tests = 0
beforeEach(() => {
  pinRoot = `/sys/fs/bpf/ambh1-${process.pid}-${++tests}`
  mkdirSync(pinRoot)
  unpin = registerCleanup(() => rmSync(pinRoot, { recursive: true }))
})
afterEach(() => unpin())

async function compile(name: string, ...flags: string[]): Promise<Buffer> {
  const out = join(dir, `${name}.bpf.o`)
  const multiarch = (await run('gcc', ['-print-multiarch'])).trim()
  const source = join(import.meta.dirname, 'testdata/tiny.bpf.c')
  await run('clang', [
    '-O2',
    '-g',
    '-Wall',
    '-target',
    'bpf',
    `-I/usr/include/${multiarch}`,
    ...flags,
    '-c',
    source,
    '-o',
    out,
  ])
  return readFileSync(out)
}

function rodata(port: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(port)
  return bytes
}

function loadTiny(): LoadedObject {
  using object = openObject(tiny, { name: 'tiny', pinRoot })
  object.setRodata(rodata(refusedPort))
  return object.load()
}

const hitsCodec: MapCodec<number, bigint> = {
  keySize: 4,
  valueSize: 8,
  encodeKey: rodata,
  decodeKey: (bytes) => bytes.readUInt32LE(0),
  encode: (value) => {
    const bytes = Buffer.alloc(8)
    bytes.writeBigUInt64LE(value)
    return bytes
  },
  decode: (bytes) => bytes.readBigUInt64LE(0),
}

const callsCodec: MapCodec<number, number> = {
  ...hitsCodec,
  valueSize: 4,
  encode: rodata,
  decode: (bytes) => bytes.readUInt32LE(0),
}

/** What a process in the cgroup is told when it connects to a port of 127.0.0.1 where nobody listens. */
async function connect(cgroup: Cgroup, port: number): Promise<'refused by peer' | 'not permitted' | string> {
  const script = `echo $$ > ${cgroup.dir}/cgroup.procs; exec 3<>/dev/tcp/127.0.0.1/${port}`
  const { stderr } = await tryRun('bash', ['-c', script], { env: { LC_ALL: 'C' } })
  if (stderr.includes('Connection refused')) return 'refused by peer'
  return stderr.includes('Operation not permitted') ? 'not permitted' : stderr
}

function withFd<T>(fd: number, fn: (fd: number) => T): T {
  try {
    return fn(fd)
  } finally {
    closeSync(fd)
  }
}

function linkToCgroup(object: LoadedObject, program: string, cgroup: Cgroup): number {
  return withFd(openSync(cgroup.dir, 'r'), (fd) =>
    attachToCgroup(object.programFd(program), fd, attachTypes.CGROUP_INET4_CONNECT),
  )
}

test('a program acts on its cgroup alone, from attach to update to detach', async () => {
  await using cgroup = Cgroup.create()
  await using other = Cgroup.create()
  using object = loadTiny()
  const link = linkToCgroup(object, 'refuse_one', cgroup)
  try {
    expect(await connect(cgroup, refusedPort)).toBe('not permitted')
    expect(await connect(cgroup, otherPort)).toBe('refused by peer')
    expect(await connect(other, refusedPort)).toBe('refused by peer')
    updateLink(link, object.programFd('refuse_none'))
    expect(await connect(cgroup, refusedPort)).toBe('refused by peer')
    updateLink(link, object.programFd('refuse_one'))
    expect(await connect(cgroup, refusedPort)).toBe('not permitted')
    detachLink(link)
    expect(await connect(cgroup, refusedPort)).toBe('refused by peer')
  } finally {
    closeSync(link)
  }
})

test('pin() keeps a link attached after its object and descriptors are closed', async () => {
  await using cgroup = Cgroup.create()
  {
    using object = loadTiny()
    withFd(linkToCgroup(object, 'refuse_one', cgroup), (link) => pin(link, join(pinRoot, 'link')))
  }
  expect(await connect(cgroup, refusedPort)).toBe('not permitted')
  rmSync(join(pinRoot, 'link'))
  await waitFor('detached program', async () => (await connect(cgroup, refusedPort)) === 'refused by peer')
})

test('pin() and openPin() name the path and the errno', () => {
  using object = loadTiny()
  const path = join(pinRoot, 'program')
  pin(object.programFd('pass'), path)
  expect(() => pin(object.programFd('pass'), path)).toThrow(`pin ${path}: EEXIST`)
  expect(() => openPin(`${path}2`)).toThrow(
    expect.objectContaining({
      name: 'SystemError',
      code: 'ENOENT',
      errno: 2,
      message: `open pin ${path}2: ENOENT`,
    }),
  )
})

test('attachToNetns() refuses a program of another type by name', async () => {
  await using netns = await Netns.create()
  using object = loadTiny()
  using target = OpenNetns.open(netns.path)
  expect(() => attachToNetns(object.programFd('refuse_one'), target.fd, attachTypes.SK_LOOKUP)).toThrow(
    'attach a program (SK_LOOKUP) to a netns: EINVAL',
  )
})

test('linkInfo() tells where a link is, and isAlive() that its cgroup is gone', async () => {
  await using cgroup = Cgroup.create()
  using object = loadTiny()
  const link = linkToCgroup(object, 'refuse_one', cgroup)
  try {
    const info = linkInfo(link)
    expect(info).toMatchObject({
      type: 'cgroup',
      cgroupId: cgroupId(cgroup.dir),
      attachType: attachTypes.CGROUP_INET4_CONNECT,
      programId: programInfo(object.programFd('refuse_one')).id,
    })
    expect(info.id).toBeGreaterThan(0)
    expect(isAlive(info)).toBe(true)
    await cgroup.dispose()
    await waitFor('severed link', () => !isAlive(linkInfo(link)))
    expect(() => updateLink(link, object.programFd('refuse_none'))).toThrow('ENOLINK')
  } finally {
    closeSync(link)
  }
})

test('a pinned link to a netns is severed when the netns goes', async () => {
  await using netns = await Netns.create()
  using object = loadTiny()
  const path = join(pinRoot, 'netns')
  {
    using target = OpenNetns.open(netns.path)
    withFd(attachToNetns(object.programFd('pass'), target.fd, attachTypes.SK_LOOKUP), (link) =>
      pin(link, path),
    )
    expect(withFd(openPin(path), linkInfo)).toMatchObject({
      type: 'netns',
      netnsIno: Number(target.identity.ino),
      attachType: attachTypes.SK_LOOKUP,
    })
  }
  expect(isAlive(withFd(openPin(path), linkInfo))).toBe(true)
  await netns.dispose()
  await waitFor('severed link', () => !isAlive(withFd(openPin(path), linkInfo)))
  withFd(openPin(path), (link) => {
    expect(() => updateLink(link, object.programFd('pass'))).toThrow('ENOLINK')
  })
})

test('programInfo() and mapInfo() tell what was loaded', async () => {
  await using cgroup = Cgroup.create()
  using object = loadTiny()
  const before = readFileSync('/proc/sys/kernel/bpf_stats_enabled', 'utf8')
  writeFileSync('/proc/sys/kernel/bpf_stats_enabled', '1')
  const restore = registerCleanup(() => writeFileSync('/proc/sys/kernel/bpf_stats_enabled', before))
  try {
    await withFdAsync(linkToCgroup(object, 'refuse_one', cgroup), () => connect(cgroup, otherPort))
    const info = programInfo(object.programFd('refuse_one'))
    expect(info).toMatchObject({ type: 18, name: 'refuse_one', runCount: 1n })
    expect(info.tag).toMatch(/^[0-9a-f]{16}$/)
    expect(info.jitedBytes).toBeGreaterThan(0)
    expect(info.runTimeNs).toBeGreaterThan(0n)
    expect(info.mapIds).toContain(mapInfo(object.mapFd('hits')).id)
    expect(info.mapIds).toHaveLength(3)
  } finally {
    await restore()
  }
  expect(mapInfo(object.mapFd('hits'))).toMatchObject({
    name: 'hits',
    type: 1,
    keySize: 4,
    valueSize: 8,
    maxEntries: 16,
    flags: 0,
  })
})

async function withFdAsync<T>(fd: number, fn: () => Promise<T>): Promise<T> {
  try {
    return await fn()
  } finally {
    closeSync(fd)
  }
}

test('programs() lists all before the load and the loaded ones after it', () => {
  using object = openObject(tiny, { name: 'tiny', pinRoot })
  expect(object.programs().sort()).toEqual(['pass', 'refuse_none', 'refuse_one', 'unchecked'])
  object.setAutoload('pass', false)
  using loaded = object.load()
  expect(loaded.programs()).toEqual(['refuse_one', 'refuse_none'])
  expect(() => loaded.programFd('pass')).toThrow('program pass of BPF object tiny is not loaded')
  expect(() => loaded.programFd('gone')).toThrow('BPF object tiny has no program gone')
  expect(() => loaded.mapFd('gone')).toThrow('BPF object tiny has no map gone')
  expect(() => object.setAutoload('pass', true)).toThrow('BPF object tiny is loaded or closed')
})

test('setRodata() refuses another size and gives both numbers', () => {
  using object = openObject(tiny, { name: 'tiny', pinRoot })
  expect(() => object.setRodata(Buffer.alloc(5))).toThrow('.rodata of BPF object tiny has 4 bytes, not 5')
})

test('openObject() refuses what is no BPF object and keeps libbpf quiet', async () => {
  expect(() => openObject(Buffer.from('no ELF file'), { name: 'x', pinRoot })).toThrow(LoadError)
  const script = `
    import { openObject } from ${JSON.stringify(join(import.meta.dirname, '../../src/bpf/object.ts'))}
    for (const captureLog of [false, true])
      try { openObject(Buffer.from('no ELF file'), { name: 'x', pinRoot: '/', captureLog }) }
      catch (err) { process.stdout.write(err.message + '|' + err.log + '|') }`
  const { stdout, stderr } = await tryRun(process.execPath, ['--input-type=module', '-e', script])
  expect(stderr).toBe('')
  expect(stdout).toMatch(/^(open BPF object x: LIBBPF_ERRNO__FORMAT\|)\|\1libbpf: /)
})

test.for([true, false])(
  'load() fails with the log of the verifier when it was captured: %s',
  (captureLog) => {
    using object = openObject(tiny, { name: 'tiny', pinRoot, captureLog })
    object.setAutoload('unchecked', true)
    const failure = expect.objectContaining({
      name: 'LoadError',
      message: 'load BPF object tiny: EACCES',
      code: 'EACCES',
      log: captureLog ? expect.stringContaining("R0 invalid mem access 'map_value_or_null'") : '',
    })
    expect(() => object.load()).toThrow(failure)
  },
)

test('load() shares pinned maps, and names what differs in one of another version', async () => {
  using first = loadTiny()
  using second = loadTiny()
  expect(mapInfo(second.mapFd('hits')).id).toBe(mapInfo(first.mapFd('hits')).id)
  using larger = openObject(await compile('larger', '-DHITS_MAX=32'), { name: 'larger', pinRoot })
  expect(() => larger.load()).toThrow(
    `pinned map ${pinRoot}/hits comes from another version: maxEntries 16 instead of 32; run "ambridge unload" first`,
  )
})

test('PinnedMap sets, inserts, lists and deletes', () => {
  using _object = loadTiny()
  using map = PinnedMap.open(join(pinRoot, 'hits'), hitsCodec)
  expect(map.get(7)).toBeUndefined()
  map.set(7, 1n)
  map.set(7, 2n ** 63n)
  expect(map.get(7)).toBe(2n ** 63n)
  expect(map.insert(7, 3n)).toBe(false)
  expect(map.insert(8, 3n)).toBe(true)
  expect(map.keys().sort()).toEqual([7, 8])
  expect(new Map(map.entries())).toEqual(
    new Map([
      [7, 2n ** 63n],
      [8, 3n],
    ]),
  )
  for (const key of map.keys()) expect(map.delete(key)).toBe(true)
  expect(map.delete(7)).toBe(false)
  expect(map.entries()).toEqual([])
})

test('PinnedMap reports a full map with its path', () => {
  using _object = loadTiny()
  using map = PinnedMap.open(join(pinRoot, 'hits'), hitsCodec)
  for (let key = 0; key < 16; key++) map.set(key, 0n)
  expect(() => map.set(16, 0n)).toThrow(`update map ${pinRoot}/hits: E2BIG`)
  expect(() => map.insert(16, 0n)).toThrow('E2BIG')
  expect(map.keys()).toHaveLength(16)
})

test('PinnedMap sees what the program counts, per CPU too', async () => {
  await using cgroup = Cgroup.create()
  using object = loadTiny()
  await withFdAsync(linkToCgroup(object, 'refuse_one', cgroup), async () => {
    await connect(cgroup, otherPort)
    await connect(cgroup, otherPort)
  })
  using hits = PinnedMap.open(join(pinRoot, 'hits'), hitsCodec)
  expect(hits.entries()).toEqual([[otherPort, 2n]])
  using calls = PinnedMap.open(join(pinRoot, 'calls'), perCpu(callsCodec))
  const counts = calls.get(0) ?? []
  expect(counts.reduce((sum, count) => sum + count, 0)).toBe(2)
  calls.set(
    0,
    counts.map((_, cpu) => 100 + cpu),
  )
  expect(calls.get(0)).toEqual(counts.map((_, cpu) => 100 + cpu))
})

test('PinnedMap.open() refuses another layout, since the kernel would pass the end of the Buffers', () => {
  using _object = loadTiny()
  const path = join(pinRoot, 'hits')
  expect(() => PinnedMap.open(path, { ...hitsCodec, valueSize: 12 })).toThrow(
    `pinned map ${path} comes from another version: valueSize 8 instead of 12; run "ambridge unload" first`,
  )
  expect(() => PinnedMap.open(path, { ...hitsCodec, keySize: 8 })).toThrow('keySize 4 instead of 8')
  expect(() => PinnedMap.open(join(pinRoot, 'calls'), callsCodec)).toThrow('values per CPU instead of shared')
  expect(() => PinnedMap.open(path, perCpu(hitsCodec))).toThrow(
    'values shared by all CPUs instead of per CPU',
  )
  using map = PinnedMap.open(path, { ...hitsCodec, encodeKey: () => Buffer.alloc(3) })
  expect(() => map.get(1)).toThrow(`key of map ${path} has 4 bytes, not 3`)
})

test('Netns.open() tells a missing path and every other kind of file from a network namespace', async () => {
  const fifo = join(dir, 'fifo')
  await run('mkfifo', [fifo])
  expect(() => OpenNetns.open('/run/netns/ambh1-none')).toThrow(
    expect.objectContaining({
      code: 'ENOENT',
      message: 'open network namespace /run/netns/ambh1-none: ENOENT',
    }),
  )
  for (const path of [dir, fifo, '/dev/null', '/proc/self/ns/mnt', '/proc/self/ns/user']) {
    expect(() => OpenNetns.open(path), path).toThrow(`${path} is not a network namespace`)
  }
})

test('Netns.run() runs in the netns and comes back, also from an error', async () => {
  await using netns = await Netns.create()
  using target = OpenNetns.open(netns.path)
  const home = hostNetnsIdentity()
  expect(target.run(hostNetnsIdentity)).toEqual(target.identity)
  expect(isSameNetns(target.identity, home)).toBe(false)
  expect(() =>
    target.run(() => {
      throw new Error('inside')
    }),
  ).toThrow('inside')
  expect(() => target.run(async () => 1)).toThrow('must be synchronous')
  expect(hostNetnsIdentity()).toEqual(home)
})

test('Netns.cookie() is the same for every path of a netns, and another one for another', async () => {
  await using netns = await Netns.create()
  await using second = await Netns.create()
  using target = OpenNetns.open(netns.path)
  using again = OpenNetns.open(`/proc/${process.pid}/fd/${target.fd}`)
  using other = OpenNetns.open(second.path)
  using own = OpenNetns.open('/proc/self/ns/net')
  expect(target.cookie()).toBeGreaterThan(0n)
  expect(again.cookie()).toBe(target.cookie())
  expect(again.identity).toEqual(target.identity)
  expect(new Set([target.cookie(), other.cookie(), own.cookie()]).size).toBe(3)
  expect(own.identity).toEqual(hostNetnsIdentity())
})

test('Netns.addresses() lists every interface, up or down', async () => {
  await using netns = await Netns.create()
  await using peer = await Netns.create()
  await veth([netns, 'eth0'], [peer, 'eth0'])
  await netns.ip([
    'addr add 10.250.1.1/24 dev eth0',
    'addr add 10.250.2.1 peer 10.250.2.2 dev eth0',
    'addr add fd10:251::1/64 dev eth0 nodad',
    'addr add 10.250.3.1/32 dev lo',
    'link set eth0 down',
    'addr add fd10:252::1/64 dev eth0 nodad',
  ])
  using target = OpenNetns.open(netns.path)
  const found = target.addresses().map(({ ifindex, ...rest }) => {
    expect(ifindex).toBeGreaterThan(rest.internal ? 0 : 1)
    return rest
  })
  expect(sorted(found)).toEqual(
    sorted([
      { ifname: 'lo', address: '127.0.0.1', family: 4, scope: 'loopback', internal: true },
      { ifname: 'lo', address: '::1', family: 6, scope: 'loopback', internal: true },
      { ifname: 'lo', address: '10.250.3.1', family: 4, scope: 'global', internal: true },
      { ifname: 'eth0', address: '10.250.1.1', family: 4, scope: 'global', internal: false },
      { ifname: 'eth0', address: '10.250.2.1', family: 4, scope: 'global', internal: false },
      { ifname: 'eth0', address: 'fd10:252::1', family: 6, scope: 'global', internal: false },
    ]),
  )
  await netns.ip(['link set eth0 up'])
  const linkLocal = await waitFor('link-local address', () =>
    target.addresses().find(({ scope }) => scope === 'link'),
  )
  expect(linkLocal.address).toMatch(/^fe80::/)
})

const sorted = <T extends { address: string }>(list: readonly T[]) =>
  [...list].sort((a, b) => a.address.localeCompare(b.address))

test('Netns.addresses() reads a dump of many datagrams', async () => {
  await using netns = await Netns.create()
  const wanted = Array.from({ length: 1500 }, (_, i) => `10.249.${i >> 8}.${i & 255}`)
  await netns.ip(wanted.map((address) => `addr add ${address}/32 dev lo`))
  using target = OpenNetns.open(netns.path)
  const found = new Set(target.addresses().map(({ address }) => address))
  expect(wanted.filter((address) => !found.has(address))).toEqual([])
})

test('Netns works for a process in a user namespace of its own', async () => {
  const daemon = startDaemon('unshare', ['-Urn', 'sleep', '60'], { logFile: join(dir, 'unshare.log') })
  const stop = registerCleanup(() => daemon.stop())
  try {
    // `sh` becomes unshare, which becomes sleep: one pid throughout.
    const path = `/proc/${daemon.pid}/ns/net`
    await waitFor('sleep', () => readFileSync(`/proc/${daemon.pid}/comm`, 'utf8') === 'sleep\n')
    using target = OpenNetns.open(path)
    expect(isSameNetns(target.identity, hostNetnsIdentity())).toBe(false)
    expect(target.cookie()).toBeGreaterThan(0n)
    expect(target.run(hostNetnsIdentity)).toEqual(target.identity)
    // Nobody has set lo up.
    expect(target.addresses()).toEqual([])
    target.lock()
  } finally {
    await stop()
  }
})

test('Netns.lock() keeps another process out until it is released', async () => {
  await using netns = await Netns.create()
  const isFree = async () => (await tryRun('flock', ['-n', netns.path, 'true'])).code === 0
  {
    using target = OpenNetns.open(netns.path)
    expect(await isFree()).toBe(true)
    target.lock()
    expect(await isFree()).toBe(false)
  }
  expect(await isFree()).toBe(true)
})

test('cgroup2Root() finds the mount of this machine', () => {
  expect(cgroup2Root()).toBe(cgroup2RootOfKit())
})

test('isBpffs() is true below /sys/fs/bpf', () => {
  expect(isBpffs(pinRoot)).toBe(true)
})

test.for([
  [11, 'EAGAIN'],
  [524, 'ENOTSUPP'],
  [4000, 'LIBBPF_ERRNO__LIBELF'],
  [4013, 'LIBBPF_ERRNO__NLPARSE'],
  [4014, 'errno 4014'],
] as const)('SystemError shows errno %i as %s', ([errno, code]) => {
  expect(new SystemError('run program', errno)).toMatchObject({
    errno,
    code,
    message: `run program: ${code}`,
  })
})
