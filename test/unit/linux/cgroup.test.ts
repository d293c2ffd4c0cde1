// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, mkdtempSync, realpathSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { cgroupId, cgroupLevel, findPodCgroup, kubepodsCgroup } from '../../../src/linux/cgroup.ts'
import { cgroup2MountIn, pathBelowMount } from '../../../src/linux/cgroup-mount.ts'

const uid = '0c9a7b3e-1f2d-4a5b-8c6d-7e8f9a0b1c2d'
const underscored = uid.replaceAll('-', '_')

let base: string
let root: string

beforeEach(() => {
  base = realpathSync(mkdtempSync(join(tmpdir(), 'cgroup-')))
  root = join(base, 'root')
  mkdirSync(root)
})
afterEach(() => rmSync(base, { recursive: true }))

function mkdir(path: string): string {
  const dir = join(root, path)
  mkdirSync(dir, { recursive: true })
  return dir
}

test.for([
  [
    'a pure v2 node',
    '31 23 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate',
    '/sys/fs/cgroup',
  ],
  [
    'a hybrid node',
    '30 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n32 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw',
    '/sys/fs/cgroup/unified',
  ],
  [
    'a node on which Cilium made a mount of its own',
    '31 23 0:27 / /run/cilium/cgroupv2 rw - cgroup2 none rw\n32 23 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw',
    '/sys/fs/cgroup',
  ],
  ['a mount point with a space', '31 23 0:27 / /mnt/c\\040g rw - cgroup2 cgroup2 rw', '/mnt/c g'],
  [
    'a container that sees a part of the tree',
    '31 23 0:27 /docker/1 /sys/fs/cgroup rw - cgroup2 cgroup2 rw',
    undefined,
  ],
  ['a node without cgroup v2', '31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu', undefined],
] as const)('cgroup2MountIn() finds the root on %s', ([, mountinfo, expected]) => {
  expect(cgroup2MountIn(mountinfo)).toEqual(expected && { dir: expected, above: 0 })
})

test.for([
  [
    "the node's mount",
    '31 23 0:27 /../../../.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw',
    { dir: '/sys/fs/cgroup', above: 4 },
  ],
  [
    "its own mount and the node's",
    '31 23 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n40 23 0:27 /../.. /host/sys/fs/cgroup rw - cgroup2 cgroup2 rw',
    { dir: '/host/sys/fs/cgroup', above: 2 },
  ],
  [
    'a mount of a part that is not its own',
    '31 23 0:27 /../../pod1 /sys/fs/cgroup rw - cgroup2 cgroup2 rw',
    undefined,
  ],
] as const)('cgroup2MountIn() in a cgroup namespace of its own: %s', ([, mountinfo, expected]) => {
  expect(cgroup2MountIn(mountinfo)).toEqual(expected)
})

test('pathBelowMount() follows a path of the whole tree, and no other', () => {
  const mount = { dir: '/sys/fs/cgroup', above: 0 }
  expect(pathBelowMount('/kubepods/pod1', mount)).toBe('/kubepods/pod1')
  expect(pathBelowMount('/../kubepods/pod1', mount)).toBeUndefined()
})

test('cgroupId() is the inode of the directory', () => {
  expect(cgroupId(root)).toBe(BigInt(statSync(root).ino))
})

test('cgroupLevel() counts from the root and refuses what is outside', () => {
  expect(cgroupLevel(root, root)).toBe(0)
  expect(cgroupLevel(root, join(root, 'kubepods/besteffort/pod1'))).toBe(3)
  expect(cgroupLevel(root, join(root, '..hidden'))).toBe(1)
  expect(() => cgroupLevel(root, base)).toThrow(`cgroup ${base} is not below ${root}`)
})

test.for(['kubepods', 'kubepods.slice', 'kubelet/kubepods', 'kubelet.slice/kubelet-kubepods.slice'])(
  'kubepodsCgroup() finds %s',
  (path) => {
    expect(kubepodsCgroup(root)).toBeUndefined()
    expect(kubepodsCgroup(mkdir(path) && root)).toBe(join(root, path))
  },
)

test.for([
  `kubepods/pod${uid}`,
  `kubepods/burstable/pod${uid}`,
  `kubepods/besteffort/pod${uid}`,
  `kubepods.slice/kubepods-pod${underscored}.slice`,
  `kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${underscored}.slice`,
  `kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod${underscored}.slice`,
  `kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod${underscored}.slice`,
])('findPodCgroup() finds %s by the UID and by the path', (path) => {
  const dir = mkdir(path)
  expect(findPodCgroup(root, { podUid: uid })).toBe(dir)
  expect(findPodCgroup(root, { cgroupPath: `/${path}` })).toBe(dir)
  expect(findPodCgroup(root, { cgroupPath: `${path}/` })).toBe(dir)
})

test('findPodCgroup() finds a static pod by the hash that is its UID', () => {
  const dir = mkdir('kubepods/besteffort/pod4f1c6b1b2a0d3c5e7f9a8b6c4d2e0f1a')
  expect(findPodCgroup(root, { podUid: '4f1c6b1b2a0d3c5e7f9a8b6c4d2e0f1a' })).toBe(dir)
})

test('findPodCgroup() finds a slice by its name alone', () => {
  const name = `kubepods-besteffort-pod${underscored}.slice`
  const dir = mkdir(`kubepods.slice/kubepods-besteffort.slice/${name}`)
  expect(findPodCgroup(root, { cgroupPath: name })).toBe(dir)
})

test('findPodCgroup() goes by the UID when the path is not there, and past an empty kubepods', () => {
  mkdir('kubepods/besteffort')
  const dir = mkdir(`kubepods.slice/kubepods-pod${underscored}.slice`)
  expect(findPodCgroup(root, { cgroupPath: '/kubepods/gone', podUid: uid })).toBe(dir)
})

test('findPodCgroup() is undefined for a pod that is not there', () => {
  expect(findPodCgroup(root, { cgroupPath: `/kubepods/pod${uid}`, podUid: uid })).toBeUndefined()
  mkdir('kubepods/burstable')
  expect(findPodCgroup(root, { podUid: uid })).toBeUndefined()
  expect(findPodCgroup(root, {})).toBeUndefined()
})

test('findPodCgroup() never leaves the root', () => {
  mkdirSync(join(base, `outside/pod${uid}`), { recursive: true })
  mkdir('kubepods')
  symlinkSync(join(base, 'outside'), join(root, 'kubepods/burstable'))
  writeFileSync(join(root, 'cgroup.procs'), '')
  for (const cgroupPath of [
    '',
    '/',
    '.',
    '/..',
    '/../outside',
    'a/../..',
    '/kubepods/burstable',
    '/cgroup.procs',
    '/a\0b',
  ]) {
    expect(findPodCgroup(root, { cgroupPath }), cgroupPath).toBeUndefined()
  }
  for (const podUid of [uid, '../../outside', '', '.', 'a/b', '1\0']) {
    expect(findPodCgroup(root, { podUid }), podUid).toBeUndefined()
  }
})
