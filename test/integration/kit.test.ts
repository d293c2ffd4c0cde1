// SPDX-License-Identifier: Apache-2.0
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { afterAll, expect, test } from 'vitest'
import { bridge, macvlan } from '../support/conflists.ts'
import { tryRun } from '../support/exec.ts'
import { lan, snapshotNetworkRules } from '../support/netns.ts'
import { type Node, startNode } from '../support/node.ts'
import { type Pod, runPod } from '../support/pods.ts'
import { hierarchies, processes } from '../support/runtime/resource.ts'

let node: Node | undefined

afterAll(async () => {
  await node?.stop()
})

test('pods of two chains on a real containerd reach each other over IPv4 and IPv6, and nothing stays behind', async () => {
  const before = leftovers()
  node = await startNode({ cgroups: 'hybrid' })
  const { dir, cgroup } = node
  await node.useConflist(bridge(node))
  const bridged = await runPod(node, { name: 'bridged' })
  await node.useConflist(macvlan(node))
  const onSegment = await runPod(node, { name: 'on-segment' })

  for (const [from, to] of [
    [bridged, onSegment],
    [onSegment, bridged],
    [bridged, bridged],
  ] as const) {
    expect(to.ips).toHaveLength(2)
    for (const ip of to.ips) expect(await httpGet(from, ip)).toContain(to.name)
  }
  expect(bridged.cgroupDir).toBe(`${bridged.podCgroupDir}/${bridged.id}`)
  expect(processes(bridged.cgroupDir)).toContain(bridged.pid)

  await onSegment.remove()
  await node.stop()
  expect(processesOf(dir)).toEqual([])
  expect(hierarchies().filter((root) => existsSync(root + cgroup.path))).toEqual([])
  expect(readFileSync('/proc/self/mounts', 'utf8')).not.toContain(dir)
  expect(leftovers()).toEqual(before)
})

test('snapshotNetworkRules() is stable, and shows a rule, a route and a filter that were added', async () => {
  await using network = await lan(2)
  const [a, b] = network.hosts
  if (!a || !b) throw new Error('two hosts expected')
  expect((await a.netns.exec('busybox', ['ping', '-c', '1', '-W', '2', b.ipv6])).code).toBe(0)
  const before = await snapshotNetworkRules(a.netns.path)
  expect(await snapshotNetworkRules(a.netns.path)).toBe(before)
  await a.netns.run('iptables', [
    '-t',
    'nat',
    '-A',
    'OUTPUT',
    '-p',
    'tcp',
    '-j',
    'REDIRECT',
    '--to-ports',
    '15001',
  ])
  await a.netns.ip(['rule add fwmark 0x111 lookup 100', 'route add local ::/0 dev lo table 100'])
  await a.netns.run('tc', ['qdisc', 'add', 'dev', 'eth0', 'clsact'])
  const everything = ['u32', 'match', 'u32', '0', '0', 'classid', '1:1']
  await a.netns.run('tc', ['filter', 'add', 'dev', 'eth0', 'ingress', ...everything])
  const added = (await snapshotNetworkRules(a.netns.path))
    .split('\n')
    .filter((line) => !before.includes(line))
  expect(added.join('\n')).toMatch(/REDIRECT.*15001.*fwmark 0x111.*clsact.*u32/s)
})

/** By a client that closes nothing before the answer came: busybox's own wget needs name services, which a static binary lacks. */
async function httpGet(from: Pod, ip: string): Promise<string> {
  const client = `{ printf 'GET /hostname HTTP/1.0\\r\\n\\r\\n'; } | nc -w 5 ${ip} 8080`
  const { stdout, stderr } = await from.exec(['sh', '-c', client])
  return stdout + stderr
}

/** What this process could have left on the machine. The image archive and the watchdog stay until it ends. */
function leftovers(): string[] {
  const mine = (dir: string) =>
    existsSync(dir) ? readdirSync(dir).filter((name) => name.startsWith(`ambt${process.pid}`)) : []
  return [
    ...mine('/run/netns'),
    ...mine(tmpdir()).filter((name) => !name.includes('image')),
    ...hierarchies().flatMap(mine),
  ]
}

function processesOf(dir: string): string[] {
  const commands = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
      } catch {
        return ''
      }
    })
  return commands.filter((command) => command.includes(dir))
}

test('a process that is killed leaves nothing: the watchdog removes what it owned', async () => {
  const module = new URL('../support/netns.ts', import.meta.url).href
  const script = `const { Netns } = await import('${module}'); await Netns.create('killed'); console.log(process.pid); process.kill(process.pid, 'SIGKILL')`
  const { stdout } = await tryRun(process.execPath, ['--input-type=module', '-e', script]).catch(
    (err: Error) => ({ stdout: err.message }),
  )
  const pid = /\d{2,}/.exec(stdout)?.[0]
  expect(pid).toBeDefined()
  const left = (): string[] => readdirSync('/run/netns').filter((name) => name.startsWith(`ambt${pid}-`))
  await expect.poll(left, { timeout: 5_000 }).toEqual([])
})
