// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest'
import { parseCgroups, parseStat } from '../../../src/linux/procs.ts'

const uid = '0c9a7b3e-1f2d-4a5b-8c6d-7e8f9a0b1c2d'
const underscored = uid.replaceAll('-', '_')
const other = '11111111-2222-3333-4444-555555555555'
const hash = '4f1c6b1b2a0d3c5e7f9a8b6c4d2e0f1a'
const id = 'c0ffee00'.repeat(8)
const node = 'deadbeef'.repeat(8)

const slice = `kubepods-besteffort-pod${underscored}.slice`

test.for([
  ['cgroupfs', `/kubepods/besteffort/pod${uid}/${id}`],
  ['cgroupfs, guaranteed', `/kubepods/pod${uid}/${id}`],
  ['cgroupfs below a --cgroup-root', `/custom/kubepods/burstable/pod${uid}/${id}`],
  ['systemd', `/kubepods.slice/kubepods-besteffort.slice/${slice}/cri-containerd-${id}.scope`],
  ['systemd, guaranteed', `/kubepods.slice/kubepods-pod${underscored}.slice/cri-containerd-${id}.scope`],
  ['CRI-O', `/kubepods.slice/kubepods-besteffort.slice/${slice}/crio-${id}.scope`],
  ['CRI-O with crun', `/kubepods.slice/kubepods-besteffort.slice/${slice}/crio-${id}.scope/container`],
  ['CRI-O, cgroupfs', `/kubepods/besteffort/pod${uid}/crio-${id}`],
  ['docker', `/kubepods.slice/kubepods-besteffort.slice/${slice}/docker-${id}.scope`],
  ['containerd without systemd', `/${slice}:cri-containerd:${id}`],
  ['containerd as a service', `/system.slice/containerd.service/${slice}:cri-containerd:${id}`],
  ['kind, cgroupfs', `/kubelet/kubepods/besteffort/pod${uid}/${id}`],
  ['kind, seen by its host', `/docker/${node}/kubelet/kubepods/besteffort/pod${uid}/${id}`],
  [
    'kind, systemd',
    `/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-${slice}/cri-containerd-${id}.scope`,
  ],
  ['another cgroup namespace', `/../../pod${uid}/${id}`],
  ['a cgroup namespace below systemd', `/../../${slice}/cri-containerd-${id}.scope`],
  ['a container that plays kubelet', `/kubepods/besteffort/pod${uid}/${id}/kubepods/pod${other}/${node}`],
] as const)('parseCgroups() tells pod and container: %s', ([, path]) => {
  expect(parseCgroups(`0::${path}\n`)).toEqual({ podUid: uid, containerId: id, cgroup: path })
})

test.for([
  ['a static pod, by its hash', `/kubepods/burstable/pod${hash}/${id}`, hash, id],
  [
    'a static pod with systemd',
    `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${hash}.slice/cri-containerd-${id}.scope`,
    hash,
    id,
  ],
  ['CRI-O, whose slice does not tell the pod', `/machine.slice/crio-${id}.scope`, undefined, id],
  ['the pod alone', `/kubepods/besteffort/pod${uid}`, uid, undefined],
  ['no container below the pod', `/kubepods/besteffort/pod${uid}/init`, uid, undefined],
  ['a service', '/system.slice/sshd.service', undefined, undefined],
  ['a name like a pod', `/kubepods/besteffort/pod${uid}x/tripod`, undefined, undefined],
  ['the root', '/', undefined, undefined],
] as const)('parseCgroups() tells no more than is there: %s', ([, path, podUid, containerId]) => {
  expect(parseCgroups(`0::${path}\n`)).toEqual({ podUid, containerId, cgroup: path })
})

const hybrid = (v1: string, v2: string) =>
  `9:name=systemd:${v1}\n4:memory:${v1}\n3:cpu,cpuacct:${v1}\n1:net_cls:/\n0::${v2}\n`

test.for([
  ['v1 alone has the pod', `/kubepods/pod${uid}/${id}`, '/'],
  ['v1 has the pod, v2 the service', `/kubepods/pod${uid}/${id}`, '/system.slice/containerd.service'],
  ['v1 has a name with colons', `/${slice}:cri-containerd:${id}`, '/'],
  ['v2 goes first', `/kubepods/pod${other}/${node}`, `/kubepods/pod${uid}/${id}`],
  ['v2 has a container without its pod', `/kubepods/pod${uid}/${id}`, `/machine.slice/crio-${node}.scope`],
] as const)('parseCgroups() on a hybrid node: %s', ([, v1, v2]) => {
  expect(parseCgroups(hybrid(v1, v2))).toEqual({ podUid: uid, containerId: id, cgroup: v2 })
})

test('parseCgroups() without a v2 hierarchy', () => {
  const text = `4:memory:/kubepods/pod${uid}/${id}\n`
  expect(parseCgroups(text)).toEqual({ podUid: uid, containerId: id, cgroup: '' })
})

test('parseStat() is not led astray by the name of the command', () => {
  const rest = '1 2 3 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 8161 3 0'
  expect(parseStat(`42 (a) Z (b)) S ${rest}`)).toEqual({
    isKernelThread: false,
    isZombie: false,
    startTime: 8161n,
  })
  expect(parseStat(`42 (sh) Z ${rest}`).isZombie).toBe(true)
})

test('parseStat() knows a kernel thread', () => {
  const kthreadd = '2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 1 0 0'
  expect(parseStat(kthreadd)).toMatchObject({ isKernelThread: true, startTime: 1n })
})
