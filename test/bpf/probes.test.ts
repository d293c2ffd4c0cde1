// SPDX-License-Identifier: Apache-2.0
/** The kubelet's probes reach the app directly, and nothing else does. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { countersOf } from '../../src/bpf/pods.ts'
import { Store } from '../../src/bpf/store.ts'
import { pinPaths } from '../../src/linux/bpffs.ts'
import { ambridgePath } from '../support/ambridge.ts'
import { Cgroup } from '../support/cgroup.ts'
import { waitFor } from '../support/exec.ts'
import { endpoint, families, ipOf, Mesh, portOf, watch } from '../support/mesh.ts'
import type { LanHost } from '../support/netns.ts'
import { connect, connectCrowd, SockClient, type Where } from '../support/sock.ts'
import type { ZtunnelStandin } from '../support/standin.ts'

/** Of the real istio-cni's probes, once it has translated them. */
const probeSources = [
  { name: 'IPv4', address: '169.254.7.127', key: 'ipv4' },
  { name: 'IPv6', address: 'fd16:9254:7127:1337:ffff:ffff:ffff:ffff', key: 'ipv6' },
] as const

let mesh: Mesh
let pod: LanHost
let netnsCookie: bigint
/** A netns that stands for the node's own: the programs were loaded there. */
let node: LanHost
let kubelet: Cgroup
let standin: ZtunnelStandin

beforeAll(async () => {
  mesh = await Mesh.create({ hosts: 3 })
  pod = mesh.host(0)
  node = mesh.host(1)
  kubelet = Cgroup.create()
  await addProbeSources()
  standin = await mesh.startStandin()
  const enrolled = await mesh.enroll(pod)
  netnsCookie = BigInt((await mesh.statusOf(enrolled))?.netnsCookie ?? 0)
  await mesh.serve(pod, 'app', [8080])
})
afterAll(async () => {
  await mesh?.dispose()
  await kubelet?.dispose()
})

async function addProbeSources(): Promise<void> {
  await node.netns.ip(probeSources.map(({ address }) => `addr add ${address} dev eth0`))
  await pod.netns.ip(probeSources.map(({ address, key }) => `route add ${address} via ${node[key]}`))
  // With none, a port is free as soon as its connection is closed.
  await node.netns.sysctl({ 'ipv4.tcp_max_tw_buckets': 0 })
}

/** `ambridge load` in the node's netns. */
function loadInNode(...args: readonly string[]): Promise<string> {
  return node.netns.run(ambridgePath(), ['load', '--bpffs', mesh.bpffs, ...args])
}

const inKubelet = (): Where => ({ netns: node.netns, cgroupDir: kubelet.dir })
const inNode = (): Where => ({ netns: node.netns })

function withStore<T>(use: (store: Store) => T): T {
  using store = new Store(pinPaths(mesh.bpffs).maps)
  return use(store)
}

function inboundCounters(): { probe: number; captured: number } {
  const { inboundProbe = 0, inboundCaptured = 0 } = withStore((store) => countersOf(store, netnsCookie))
  return { probe: Number(inboundProbe), captured: Number(inboundCaptured) }
}

/** Connect to the app; tells also who was asked first. */
async function reach(from: Where, to: string, options: readonly string[] = []) {
  const before = inboundCounters()
  const atProxy = watch(standin)
  const { ok, error, local, reply } = await connect(from, to, 8080, options)
  const after = inboundCounters()
  return {
    ok,
    error,
    server: reply?.server,
    isSeenAs: reply?.peer === local ? 'itself' : reply?.peer,
    probes: after.probe - before.probe,
    captured: after.captured - before.captured,
    atProxy: atProxy().filter(({ peer }) => peer === local).length,
  }
}

const direct = { ok: true, server: 'app', isSeenAs: 'itself', probes: 1, captured: 0, atProxy: 0 }
const captured = { ok: true, server: 'app', probes: 0, captured: 1, atProxy: 1 }

const flows = () => withStore(({ probeFlows }) => probeFlows.entries())
const untilNoFlows = () => waitFor('the end of all probe flows', () => flows().length === 0)

async function probeLinks(): Promise<(string | undefined)[]> {
  const { links } = await mesh.status()
  return links.filter(({ program }) => program === 'probes').map(({ cgroup }) => cgroup)
}

describe('in mode kubelet', () => {
  beforeAll(() => loadInNode('--probes', 'kubelet', '--kubelet-cgroup', kubelet.dir))

  describe.for(families)('over $name', ({ key, options }) => {
    test('the kubelet reaches the app directly, and is seen as itself', async () => {
      expect(await reach(inKubelet(), pod[key], options)).toMatchObject(direct)
    })

    test('another process of the node is captured', async () => {
      expect(await reach(inNode(), pod[key], options)).toMatchObject(captured)
    })

    test('another pod is captured, even from the cgroup of the kubelet', async () => {
      const { netns } = mesh.host(2)
      expect(await reach({ netns }, pod[key], options)).toMatchObject(captured)
      expect(await reach({ netns, cgroupDir: kubelet.dir }, pod[key], options)).toMatchObject(captured)
      expect(flows()).toEqual([])
    })

    test('the exemption lasts as long as the connection, and is for its two ends alone', async () => {
      await using client = await SockClient.start(inKubelet(), pod[key], 8080, [
        ...options,
        '--hold',
        '20000',
      ])
      const { local } = await client.result()
      const [[flow] = []] = flows()
      const ends = { client: ipOf(local), clientPort: portOf(local), server: pod[key], serverPort: 8080 }
      expect(flow).toEqual({ ...ends, netns: 0n })
      await client.stop()
      await untilNoFlows()
    })

    test('it ends when the connection is refused', async () => {
      expect(await connect(inKubelet(), pod[key], 8081, options)).toMatchObject({ error: 'ECONNREFUSED' })
      await untilNoFlows()
    })

    test('and when it is given up before it is answered', async () => {
      // Without a neighbour the SYN stays in the node.
      await node.netns.run('ip', ['neigh', 'replace', pod[key], 'lladdr', '02:00:00:00:00:01', 'dev', 'eth0'])
      try {
        const result = await connect(inKubelet(), pod[key], 8080, [
          ...options,
          '--nonblock',
          '--timeout',
          '100',
        ])
        expect(result).toMatchObject({ error: 'ETIMEDOUT' })
        await untilNoFlows()
      } finally {
        await node.netns.run('ip', ['neigh', 'del', pod[key], 'dev', 'eth0'])
      }
    })

    test.for([
      { port: 8080, how: 'was closed' },
      { port: 8081, how: 'was refused' },
    ])('the next socket with the ends of a probe that $how is captured', async ({ port }) => {
      const bind = ['--bind', endpoint(node[key], 40_000), '--reuseaddr', ...options]
      await connect(inKubelet(), pod[key], port, bind)
      await untilNoFlows()
      const before = inboundCounters()
      const proxied = watch(standin)
      await connect(inNode(), pod[key], port, bind)
      expect(inboundCounters()).toEqual({ ...before, captured: before.captured + 1 })
      await waitFor('the connection at the proxy', () => proxied().length > 0)
      expect(proxied()).toMatchObject([
        { peer: endpoint(node[key], 40_000), original: endpoint(pod[key], port) },
      ])
    })

    test.for([
      { name: 'lets its own connection in', ageNs: 0n, clientPort: 40_001, outcome: direct },
      {
        name: 'is too old to let in another',
        ageNs: 131_000_000_000n,
        clientPort: 40_002,
        outcome: captured,
      },
    ])('an entry $name', async ({ ageNs, clientPort, outcome }) => {
      const flow = { netns: 0n, client: node[key], clientPort, server: pod[key], serverPort: 8080 }
      withStore(({ probeFlows }) => probeFlows.set(flow, process.hrtime.bigint() - ageNs))
      const bind = ['--bind', endpoint(node[key], clientPort), '--reuseaddr', ...options]
      const result = await reach(inNode(), pod[key], bind)
      withStore(({ probeFlows }) => probeFlows.delete(flow))
      expect(result).toMatchObject(outcome)
    })

    test('hundreds of probes at once are direct, and leave nothing', async () => {
      const before = inboundCounters()
      const crowd = await connectCrowd(inKubelet(), pod[key], 8080, 300, options)
      expect(crowd).toMatchObject({ ok: 300, errors: {} })
      expect(inboundCounters()).toEqual({ ...before, probe: before.probe + 300 })
      await untilNoFlows()
    })

    test('with SYN cookies, too, probes are direct and others are captured', async () => {
      await pod.netns.sysctl({ 'ipv4.tcp_syncookies': 2 })
      try {
        // Counted twice: the ACK is looked up as the SYN was.
        expect(await reach(inKubelet(), pod[key], options)).toMatchObject({ ...direct, probes: 2 })
        expect(await reach(inNode(), pod[key], options)).toMatchObject({ ...captured, captured: 2 })
      } finally {
        await pod.netns.sysctl({ 'ipv4.tcp_syncookies': 1 })
      }
    })

    test("the proxy's tunnel port stays the proxy's", async () => {
      const options15008 = [...options, '--hbone', endpoint(pod[key], 8080)]
      expect(await connect(inKubelet(), pod[key], 15008, options15008)).toMatchObject({ ok: true })
      await standin.waitForConnection((each) => each.listener === 15008)
    })
  })

  test.for(probeSources)("what comes from istio-cni's probe address is direct over $name", async (source) => {
    const bind = ['--bind', source.address]
    expect(await reach(inNode(), pod[source.key], bind)).toMatchObject(direct)
  })

  test('load without options keeps the mode and the cgroup', async () => {
    expect(await probeLinks()).toEqual([kubelet.dir])
    await loadInNode()
    expect(await probeLinks()).toEqual([kubelet.dir])
    expect(await reach(inKubelet(), pod.ipv4)).toMatchObject(direct)
  })

  test('load follows the kubelet into another cgroup', async () => {
    await using moved = Cgroup.create()
    await loadInNode('--kubelet-cgroup', moved.dir)
    expect(await probeLinks()).toEqual([moved.dir])
    expect(await reach({ ...inKubelet(), cgroupDir: moved.dir }, pod.ipv4)).toMatchObject(direct)
    expect(await reach(inKubelet(), pod.ipv4)).toMatchObject(captured)
    await loadInNode('--kubelet-cgroup', kubelet.dir)
  })
})

describe.for(families)('over $name, in mode', ({ key, options }) => {
  const to = () => pod[key]
  const load = (...args: readonly string[]) => loadInNode(...args, '--kubelet-cgroup', kubelet.dir)

  test('uid, what this user of the node dials is direct', async () => {
    await load('--probes', 'uid', '--kubelet-uid', '2000')
    expect(await reach(inKubelet(), to(), [...options, '--uid', '2000'])).toMatchObject(direct)
    expect(await reach(inKubelet(), to(), [...options, '--uid', '2001'])).toMatchObject(captured)
    expect(await reach(inKubelet(), to(), options)).toMatchObject(captured)
    const { netns } = mesh.host(2)
    const elsewhere = await reach({ ...inKubelet(), netns }, to(), [...options, '--uid', '2000'])
    expect(elsewhere).toMatchObject(captured)
    await untilNoFlows()
  })

  test('any-host-socket, what any process of the node dials is direct', async () => {
    await load('--probes', 'any-host-socket')
    for (const uid of ['0', '2001']) {
      expect(await reach(inKubelet(), to(), [...options, '--uid', uid])).toMatchObject(direct)
    }
    const { netns } = mesh.host(2)
    expect(await reach({ ...inKubelet(), netns }, to(), options)).toMatchObject(captured)
    await untilNoFlows()
  })

  test('off, everything is captured', async () => {
    await load('--probes', 'off')
    expect(await probeLinks()).toEqual([])
    expect(await reach(inKubelet(), to(), options)).toMatchObject(captured)
  })
})

describe.for(probeSources)("istio-cni's probe address of $name, in mode off", ({ address, key }) => {
  test('is a source like any other', async () => {
    await loadInNode('--probes', 'off')
    expect(await reach(inNode(), pod[key], ['--bind', address])).toMatchObject(captured)
  })

  test('is a destination that is not captured', async () => {
    await using _server = await mesh.serve(node, 'node', [8080])
    const before = standin.connections().length
    const result = await connect(mesh.at(pod), address, 8080)
    expect(result).toMatchObject({ ok: true, reply: { server: 'node', peer: result.local } })
    expect(standin.connections().length).toBe(before)
  })
})
