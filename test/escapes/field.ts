// SPDX-License-Identifier: Apache-2.0
/** Where the attempts are made: a pod that is enrolled, its twin that is not, and somebody far who is not either. */
import { expect } from 'vitest'
import { type Enrolled, endpoint, Mesh, type MeshOptions, watch } from '../support/mesh.ts'
import type { LanHost, Netns } from '../support/netns.ts'
import { type ConnectResult, connect, type ServerView, type SockServer, type Where } from '../support/sock.ts'
import type { ProxyConnection, ZtunnelStandin } from '../support/standin.ts'
import { Escape, type Proof } from './vector.ts'

/** What a server and the proxy got while something was done. */
export interface Observation<T> {
  readonly value: T
  readonly reached: readonly ServerView[]
  readonly captured: readonly ProxyConnection[]
}

export type Outcome = Observation<ConnectResult>

export class Field implements AsyncDisposable {
  readonly mesh: Mesh
  readonly pod: LanHost
  readonly twin: LanHost
  readonly far: LanHost
  /** At far, port 8080. */
  readonly server: SockServer
  /** In the pod and in the twin, port 8080. */
  readonly app: SockServer
  readonly twinApp: SockServer
  readonly standin: ZtunnelStandin
  readonly enrolled: Enrolled

  private constructor(parts: Omit<Field, 'at' | 'observe' | 'dispose' | typeof Symbol.asyncDispose>) {
    this.mesh = parts.mesh
    this.pod = parts.pod
    this.twin = parts.twin
    this.far = parts.far
    this.server = parts.server
    this.app = parts.app
    this.twinApp = parts.twinApp
    this.standin = parts.standin
    this.enrolled = parts.enrolled
  }

  /** Hosts 0, 1 and 2 of the mesh are the pod, its twin and far. `prepare` runs before the pod is enrolled. */
  static async create(
    options: MeshOptions = {},
    prepare: (hosts: Readonly<Record<'pod' | 'twin' | 'far', LanHost>>) => Promise<void> = async () => {},
  ): Promise<Field> {
    const mesh = await Mesh.create({ hosts: 3, ...options })
    try {
      const [pod, twin, far] = [mesh.host(0), mesh.host(1), mesh.host(2)]
      await prepare({ pod, twin, far })
      const server = await mesh.serve(far, 'server', [8080])
      const app = await mesh.serve(pod, 'app', [8080])
      const twinApp = await mesh.serve(twin, 'twin', [8080])
      const standin = await mesh.startStandin()
      const enrolled = await mesh.enroll(pod)
      return new Field({ mesh, pod, twin, far, server, app, twinApp, standin, enrolled })
    } catch (err) {
      await mesh.dispose()
      throw err
    }
  }

  at(host: LanHost): Where {
    return this.mesh.at(host)
  }

  /** Of the proxy's connections only those from or to `from`; default: the pod. */
  async observe<T>(
    server: SockServer,
    act: () => Promise<T>,
    { from = this.pod, connections = 1 }: { readonly from?: LanHost; readonly connections?: number } = {},
  ): Promise<Observation<T>> {
    const earlier = server.connections().length
    const all = watch(this.standin)
    const captured = (): ProxyConnection[] => all().filter(({ netns }) => netns === from.netns.path)
    const reached = (): ServerView[] => server.connections().slice(earlier)
    const value = await act()
    await settle(() => captured().length >= Math.max(connections, reached().length))
    return { value, reached: reached(), captured: captured() }
  }

  dispose(): Promise<void> {
    return this.mesh.dispose()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose()
  }
}

/** A log is written a little later than the client gets its answer; what has not come by then does not come. */
async function settle(isComplete: () => boolean): Promise<void> {
  const deadline = Date.now() + 200
  while (!isComplete() && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 10))
}

/** How a host dials: from its own address if `from` is given. */
export interface Attempt {
  readonly to: string
  readonly port?: number
  readonly options?: readonly string[]
  /** How many it makes; default 1. */
  readonly connections?: number
  /** Default: what Mesh.at() gives. */
  readonly where?: (host: LanHost) => Where
}

/** The twin reaches far's server; the pod does the same, and far hears of nobody but the proxy. */
export async function proveOutbound(field: Field, attempt: Attempt): Promise<Proof> {
  const free = await dialFar(field, field.twin, attempt)
  const without = expectDirect(free)
  const bound = await dialFar(field, field.pod, attempt)
  return { without, with: expectContained(bound) }
}

export function dialFar(field: Field, from: LanHost, attempt: Attempt): Promise<Outcome> {
  const { to, port = 8080, options = [], connections = 1, where = (host) => field.at(host) } = attempt
  const dial = () => connect(where(from), to, port, ['--timeout', '1500', ...options])
  return field.observe(field.server, dial, { from, connections })
}

/** Far dials the twin and reaches its app; it dials the pod in the same way, and the app hears of nobody but the proxy. */
export async function proveInbound(
  field: Field,
  attempt: (host: LanHost) => Attempt | Promise<Attempt>,
): Promise<Proof> {
  const without = expectDirect(await dialIn(field, field.twin, await attempt(field.twin)))
  return { without, with: expectContained(await dialIn(field, field.pod, await attempt(field.pod))) }
}

export function dialIn(field: Field, host: LanHost, attempt: Attempt): Promise<Outcome> {
  const { to, port = 8080, options = [] } = attempt
  const server = host === field.pod ? field.app : field.twinApp
  const dial = () => connect(field.at(field.far), to, port, ['--timeout', '1500', ...options])
  return field.observe(server, dial, { from: host })
}

/** The connection came to the server itself. */
export function expectDirect({ value, reached, captured }: Outcome): string {
  expect(captured).toEqual([])
  expect(value, JSON.stringify(value)).toMatchObject({ ok: true })
  expect(reached.length, 'connections that the server got').toBeGreaterThan(0)
  return 'reached'
}

/** Every connection that the server got is one that the proxy made. Tells what became of the attempt. */
export function expectContained({ value, reached, captured }: Outcome): string {
  const proxied = captured.filter(
    ({ dialled }) => dialled !== null && reached.some((each) => each.local === dialled),
  )
  if (reached.length > proxied.length) {
    throw new Escape(`the server got ${JSON.stringify(reached)}, the proxy saw ${JSON.stringify(captured)}`)
  }
  if (captured.length > 0) return value.ok ? 'captured' : `captured, then ${value.error}`
  expect(value, 'a connection that nobody saw').toMatchObject({ ok: false })
  return `refused: ${value.error}`
}

/** The proxy got the connection, and was told its true destination. */
export function expectCaptured(outcome: Outcome, to: string, port: number): string {
  const seen = outcome.captured.map(({ original }) => original)
  expect(seen, JSON.stringify(outcome.value)).toContain(endpoint(to, port))
  return expectContained(outcome)
}

/** Of eth0, without the scope. */
export async function linkLocal(netns: Netns): Promise<string> {
  const text = await netns.run('ip', ['-6', '-o', 'addr', 'show', 'dev', 'eth0', 'scope', 'link'])
  const address = /inet6 (\S+)\/64/.exec(text)?.[1]
  if (address === undefined) throw new Error(`no link-local address: ${text}`)
  return address
}

let tables = 0

/** A NAT rule in the chain of this hook. Disposing it removes it. */
export async function nat(
  netns: Netns,
  hook: string,
  rule: string,
  family: 'ip' | 'ip6' = 'ip',
): Promise<AsyncDisposable> {
  const table = [family, `escape${++tables}`]
  const chain = `chain c {\ntype nat hook ${hook} priority 0\n${rule}\n}`
  await netns.run('nft', ['-f', '-'], { input: `table ${table.join(' ')} {\n${chain}\n}\n` })
  return { [Symbol.asyncDispose]: async () => void (await netns.run('nft', ['delete', 'table', ...table])) }
}
