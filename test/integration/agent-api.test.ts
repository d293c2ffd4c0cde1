// SPDX-License-Identifier: Apache-2.0
/** The plugin and its agent: the built executable, as a container runtime runs it, against a server in this process. */
import { chmodSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { writeEnrollment } from '../../src/agent-api/enrollment-file.ts'
import type { ActivateRequest, DecideRequest, Request } from '../../src/agent-api/protocol.ts'
import { AgentServer, type AgentServerOptions } from '../../src/agent-api/server.ts'
import { Netns, type NetnsIdentity } from '../../src/linux/netns.ts'
import { Poller } from '../../src/linux/poller.ts'
import { createLogger } from '../../src/log.ts'
import type { Decision, SidecarRules } from '../../src/policy/pod.ts'
import { RemedyError } from '../../src/remedy.ts'
import { type AgentError, agentErrors, type Behaviour, enrollmentFile, pod } from '../support/agent-errors.ts'
import {
  ambridgePath,
  type CniCall,
  type CniCommand,
  type CniOutcome,
  cni,
  tryCni,
} from '../support/ambridge.ts'
import { own } from '../support/cleanup.ts'
import { tryRun } from '../support/exec.ts'
import { Mesh } from '../support/mesh.ts'
import { RawAgent, type RawAnswer } from '../support/raw-agent.ts'
import { tracesIn } from '../support/traces.ts'

const dir = join(tmpdir(), `ambt${process.pid}-agent`)
const removeDir = own({ kind: 'dir', path: dir })
const socket = join(dir, 'run/agent.sock')
const file = join(dir, 'lib/enrollment.json')
const logFile = join(dir, 'cni.log')

const silent = createLogger('error', { write: () => undefined, flush: async () => undefined })
const policy = { mode: 'ambient', dnsCapture: true, bypassInbound: false, egressGuard: false } as const
const yes: Decision = { enroll: true, reason: 'a selector matches its labels', policy, warnings: [] }
const no: Decision = { enroll: false, reason: 'no selector matches its labels', warnings: [] }

let mesh: Mesh
let poller: Poller

beforeAll(async () => {
  mesh = await Mesh.create({ hosts: 1 })
  poller = new Poller()
})
beforeEach(() => {
  for (const path of [socket, file]) mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
})
afterEach(async () => {
  await cni('DEL', call())
  rmSync(dir, { recursive: true, force: true })
})
afterAll(async () => {
  poller?.[Symbol.dispose]()
  await mesh?.dispose()
  await removeDir()
})

/** For the pod that is host 0. */
function call(conf: object = {}, { namespace, name, uid } = pod): CniCall {
  const { netns } = mesh.host(0)
  return {
    ...{ containerId: netns.name, netns: netns.path, ifname: 'eth0' },
    conf: {
      ...mesh.conf(),
      enrollment: { source: 'agent' },
      ...{ agentSocket: socket, enrollmentFile: file, logFile },
      ...{ prevResult: { cniVersion: '1.0.0', ips: [] }, ...conf },
    },
    env: {
      CNI_ARGS: `IgnoreUnknown=1;K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=${name};K8S_POD_UID=${uid}`,
    },
  }
}

function other(name: string, more: Partial<typeof pod> = {}): typeof pod {
  return { ...pod, name, uid: `${name}-uid`, ...more }
}

interface Agent extends AsyncDisposable {
  readonly asked: readonly Request[]
  /** What came with `activate`. */
  readonly netns: readonly { readonly identity: NetnsIdentity; readonly cookie: bigint }[]
}

function startAgent(handlers: Partial<Pick<AgentServerOptions, 'decide' | 'activate'>> = {}): Agent {
  const { decide = async () => yes, activate = async () => undefined } = handlers
  const asked: Request[] = []
  const seen: { identity: NetnsIdentity; cookie: bigint }[] = []
  const server = AgentServer.listen({
    path: socket,
    poller,
    log: silent,
    decide: (request: DecideRequest) => {
      asked.push({ op: 'decide', ...request })
      return decide(request)
    },
    activate: async (request: ActivateRequest, received: Netns) => {
      using netns = received
      asked.push({ op: 'activate', ...request })
      seen.push({ identity: netns.identity, cookie: netns.cookie() })
      await activate(request, netns)
    },
  })
  return { asked, netns: seen, [Symbol.asyncDispose]: () => server.stop() }
}

const enrolled = async () => (await mesh.status()).pods.map(({ namespace, name }) => `${namespace}/${name}`)

describe('an agent that answers', () => {
  const asks = (op: Request['op']) => ({ op, containerId: mesh.host(0).netns.name, ifname: 'eth0', pod })

  test('has ADD ask once, enroll the pod, and then hand over its netns', async () => {
    const before: string[][] = []
    await using agent = startAgent({ activate: async () => void before.push(await enrolled()) })
    expect(await cni('ADD', call())).toEqual({ cniVersion: '1.0.0', ips: [] })
    expect(agent.asked).toEqual([asks('decide'), asks('activate')])
    expect(before).toEqual([['shop/cart']])
    expect(await enrolled()).toEqual(['shop/cart'])
    using netns = Netns.open(mesh.host(0).netns.path)
    expect(agent.netns).toEqual([{ identity: netns.identity, cookie: netns.cookie() }])
  })

  test("gets the netns from a path that only the plugin's mount namespace has", async () => {
    await using agent = startAgent()
    const hidden = join(dir, 'hidden')
    mkdirSync(hidden)
    const script = `mount -t tmpfs none "$1" && touch "$1/netns" && mount --bind "$2" "$1/netns" && exec "$0"`
    const { containerId = '', netns: path = '', ifname = '', conf, env = {} } = call()
    const variables = { CNI_CONTAINERID: containerId, CNI_IFNAME: ifname, CNI_NETNS: `${hidden}/netns` }
    const result = await tryRun('unshare', ['--mount', 'sh', '-c', script, ambridgePath(), hidden, path], {
      env: { ...env, ...variables, CNI_COMMAND: 'ADD', CNI_PATH: '/x' },
      input: JSON.stringify(conf),
    })
    expect(result).toMatchObject({ code: 0 })
    using netns = Netns.open(path)
    expect(agent.netns).toEqual([{ identity: netns.identity, cookie: netns.cookie() }])
  })

  test('that a pod is not enrolled: ADD succeeds, and needs no programs', async () => {
    await using agent = startAgent({ decide: async () => no })
    await cni('ADD', call({ bpffs: '/nowhere/at/all' }))
    expect(agent.asked).toEqual([asks('decide')])
    expect(await enrolled()).toEqual([])
  })

  test('that it is, while the programs are not loaded: code 11 says who loads them', async () => {
    await using agent = startAgent()
    const bpffs = '/sys/fs/bpf/ambt-not-there'
    expect((await tryCni('ADD', call({ bpffs }))).output).toEqual({
      ...{ cniVersion: '1.0.0', code: 11, msg: 'cannot enroll pod shop/cart' },
      details: `the eBPF programs are not loaded: no maps in ${bpffs}/maps; run "ambridge load" on this node (the ambridge agent does it)`,
    })
    expect(agent.asked).toEqual([asks('decide')])
  })

  test('with the rules of a sidecar, which come through as they are', async () => {
    await mesh.load(['--sidecar'])
    const sidecar: SidecarRules = {
      ...{ includeInboundPorts: '*', excludeInboundPorts: [15020, 65535], includeOutboundPorts: [] },
      ...{ excludeOutboundPorts: [0], includeOutboundRanges: '*', includesLoopback: false },
      excludeOutboundRanges: [{ address: 'fd00::', prefix: 8, family: 6 }],
      ...{ proxyUid: 1337, proxyGid: 4294967294 },
    }
    const decision: Decision = { ...yes, policy: { ...policy, mode: 'sidecar', sidecar } }
    await using _ = startAgent({ decide: async () => decision })
    await cni('ADD', call())
    expect((await mesh.status()).pods).toMatchObject([{ mode: 'sidecar' }])
  })

  test('is not asked about pods of excluded namespaces and what is no pod of Kubernetes', async () => {
    await using agent = startAgent()
    await cni('ADD', call({ excludeNamespaces: ['shop'] }))
    await cni('ADD', { ...call(), env: {} })
    expect(agent.asked).toEqual([])
    expect(await enrolled()).toEqual([])
  })

  test('is not asked by DEL and GC', async () => {
    await using agent = startAgent()
    await cni('ADD', call())
    const before = agent.asked.length
    await cni('GC', { conf: { ...call().conf, cniVersion: '1.1.0', 'cni.dev/valid-attachments': [] } })
    expect(await enrolled()).toEqual([])
    await cni('ADD', call())
    await cni('DEL', call())
    expect(await enrolled()).toEqual([])
    expect(agent.asked.slice(before).map(({ op }) => op)).toEqual(['decide', 'activate'])
  })

  test('is asked by CHECK whether there is anything to check', async () => {
    let decision: Decision = no
    await using agent = startAgent({ decide: async () => decision })
    await cni('CHECK', call())
    decision = yes
    expect((await tryCni('CHECK', call())).output).toMatchObject({ code: 100 })
    await cni('ADD', call())
    await cni('CHECK', call())
    expect(agent.asked.map(({ op }) => op)).toEqual(['decide', 'decide', 'decide', 'activate', 'decide'])
  })

  test('warnings of the agent are in the log', async () => {
    await using _ = startAgent({ decide: async () => ({ ...no, warnings: ['annotation ignored'] }) })
    await cni('ADD', call())
    expect(logged()).toMatchObject([{ level: 'warn', message: 'annotation ignored' }])
  })

  test('many plugins at once', async () => {
    let waiting = 0
    const { promise: all, resolve } = Promise.withResolvers<void>()
    await using _ = startAgent({
      decide: async () => {
        if (++waiting === 8) resolve()
        await all
        return no
      },
    })
    await Promise.all(Array.from({ length: 8 }, () => cni('ADD', call())))
    expect(waiting).toBe(8)
  })
})

function logged(): unknown[] {
  return readFileSync(logFile, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
}

describe('while the agent is away', () => {
  async function outcome(command: CniCommand, which = pod): Promise<CniOutcome> {
    return tryCni(command, call({}, which))
  }

  test.for([
    ['was not enrolled', other('job', { uid: 'job-uid' }), enrollmentFile()],
    ['is of a namespace that is excluded', other('dns', { namespace: 'kube-system' }), enrollmentFile()],
    ['is of a namespace that cannot be selected', other('new', { namespace: 'plain' }), enrollmentFile()],
  ] as const)('a pod starts that %s, and the log tells', async ([, which, content]) => {
    writeEnrollment(file, content)
    expect(await outcome('ADD', which)).toMatchObject({ code: 0 })
    expect(await outcome('CHECK', which)).toMatchObject({ code: 0 })
    expect(await enrolled()).toEqual([])
    expect(logged()).toMatchObject([
      { level: 'warn', message: `no agent: ${socket} is not there; ${file} decided` },
    ])
  })

  test('CHECK finds what ADD did, and what is gone', async () => {
    writeEnrollment(file, enrollmentFile())
    {
      await using _ = startAgent()
      await cni('ADD', call())
    }
    expect(await outcome('CHECK')).toMatchObject({ code: 0 })
    await cni('DEL', call())
    expect(await outcome('CHECK')).toMatchObject({ code: 1, output: { code: 100 } })
  })

  test('CHECK of a pod of which nobody can tell is code 11', async () => {
    expect(await outcome('CHECK')).toMatchObject({ code: 1, output: { code: 11 } })
  })

  test('a running pod goes, and a GC collects', async () => {
    {
      await using _ = startAgent()
      await cni('ADD', call())
    }
    await cni('DEL', call())
    await cni('GC', { conf: { ...call().conf, cniVersion: '1.1.0', 'cni.dev/valid-attachments': [] } })
    expect(await enrolled()).toEqual([])
  })
})

describe('what the plugin says:', () => {
  /** An agent that behaves as the row says; without one, nobody listens. */
  function behave({ decide, activate }: AgentError): AsyncDisposable {
    const stack = new AsyncDisposableStack()
    if (decide === 'absent') return stack
    if (isThrown(decide) || isThrown(activate)) return startAgent(handlersOf(decide, activate))
    const answer = ({ bytes }: { bytes: Buffer }, agent: RawAgent): RawAnswer => {
      const { op } = JSON.parse(bytes.toString())
      const behaviour = op === 'decide' ? decide : activate
      if (behaviour === undefined) {
        if (activate === 'absent' || activate === 'dead') agent.stopListening()
        if (activate === 'absent') agent.removeSocket()
        return packet({ version: 1, decision: yes })
      }
      if (behaviour === 'silent') return 'hold'
      return typeof behaviour === 'string' || isThrown(behaviour) ? undefined : packet(behaviour.says)
    }
    const agent = stack.use(new RawAgent(socket, poller, answer))
    if (decide === 'dead') agent.stopListening()
    return stack
  }

  function isThrown(behaviour: Behaviour | undefined): behaviour is { readonly throws: Error } {
    return typeof behaviour === 'object' && 'throws' in behaviour
  }

  function handlersOf(decide: Behaviour | undefined, activate: Behaviour | undefined) {
    const fail = (behaviour: Behaviour | undefined) => {
      if (isThrown(behaviour)) throw behaviour.throws
    }
    return {
      decide: async () => {
        fail(decide)
        return yes
      },
      activate: async () => fail(activate),
    }
  }

  const packet = (document: unknown) => Buffer.from(JSON.stringify(document) ?? 'no JSON')

  test.for(agentErrors)('$when', async (row) => {
    await using _ = behave(row)
    if (row.file !== undefined) {
      const text = typeof row.file === 'string' ? row.file : JSON.stringify(row.file)
      writeFileSync(file, text, { mode: 0o600 })
      chmodSync(file, row.fileMode ?? 0o600)
    }
    const { netns } = mesh.host(0)
    const { code, output } = await tryCni('ADD', call())
    const details = row.details.replaceAll('{socket}', socket).replaceAll('{file}', file)
    expect({ code, output }).toEqual({
      code: 1,
      output: { cniVersion: '1.0.0', code: row.code, msg: row.msg, details },
    })
    expect(tracesIn(mesh.bpffs, { cookie: cookieOf(netns.path), containerIds: [netns.name] })).toEqual([])
  })

  function cookieOf(path: string): bigint {
    using netns = Netns.open(path)
    return netns.cookie()
  }

  test('a plugin that is not root cannot ask', async () => {
    await using agent = startAgent()
    chmodSync(dir, 0o755)
    chmodSync(dirname(socket), 0o755)
    const { containerId = '', netns = '', ifname = '', conf, env = {} } = call()
    const args = ['--reuid=65534', '--regid=65534', '--clear-groups', '--', ambridgePath()]
    const variables = { CNI_CONTAINERID: containerId, CNI_IFNAME: ifname, CNI_NETNS: netns }
    const { stdout } = await tryRun('setpriv', args, {
      env: { ...env, ...variables, CNI_COMMAND: 'ADD', CNI_PATH: '/x' },
      input: JSON.stringify(conf),
    })
    expect(JSON.parse(stdout)).toEqual({
      ...{ cniVersion: '1.0.0', code: 11, msg: 'cannot tell whether pod shop/cart is enrolled' },
      details: `cannot ask the agent on ${socket}: EACCES; the plugin must run as root, and agentSocket name the socket of the ambridge agent`,
    })
    expect(agent.asked).toEqual([])
  })

  test('a pod without a namespace is not looked for in another', async () => {
    await using agent = startAgent()
    const { output } = await tryCni('ADD', { ...call(), env: { CNI_ARGS: 'K8S_POD_NAME=cart' } })
    expect(output).toEqual({
      ...{ cniVersion: '1.0.0', code: 4, msg: 'CNI_ARGS has no K8S_POD_NAMESPACE' },
      details: 'the container runtime sets it beside K8S_POD_NAME',
    })
    expect(agent.asked).toEqual([])
  })

  test('a request that the agent does not accept', async () => {
    await using agent = startAgent()
    const { output } = await tryCni('ADD', call({}, other('NOT A NAME')))
    expect(output).toMatchObject({
      code: 11,
      details:
        'the request is not understood: pod.name must match pattern "^[a-z0-9.\\-]{1,253}$"; use plugin and agent of the same version',
    })
    expect(agent.asked).toEqual([])
  })
})

test('an ADD that the agent failed leaves nothing, and the next one works', async () => {
  let fails = true
  await using agent = startAgent({
    activate: async () => {
      if (fails) throw new RemedyError('no ztunnel is connected', 'start ztunnel on this node')
    },
  })
  expect(await tryCni('ADD', call())).toMatchObject({ code: 1 })
  expect(await enrolled()).toEqual([])
  fails = false
  await cni('ADD', call())
  expect(await enrolled()).toEqual(['shop/cart'])
  expect(agent.netns).toHaveLength(2)
})

test('the socket and the file are for root alone', async () => {
  rmSync(dirname(socket), { recursive: true })
  rmSync(dirname(file), { recursive: true })
  await using _ = startAgent()
  writeEnrollment(file, enrollmentFile())
  const modes = [dirname(socket), socket, dirname(file), file].map((path) => statSync(path).mode & 0o777)
  expect(modes).toEqual([0o700, 0o600, 0o700, 0o600])
})
