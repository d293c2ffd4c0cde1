// SPDX-License-Identifier: Apache-2.0
/** The application of the tests: `build/tools/sock` as client and server, in any netns and cgroup. */
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { fileURLToPath } from 'node:url'
import { Cgroup } from './cgroup.ts'
import { own, registerCleanup } from './cleanup.ts'
import { type Daemon, run, startDaemon, tryRun, waitFor } from './exec.ts'

/** Where a process runs. Default: where the test does. */
export interface Where {
  readonly netns?: { readonly path: string }
  /** A cgroup2 directory that the test owns. */
  readonly cgroupDir?: string
}

/** What the server saw. Addresses are `ip:port` or `[ip]:port`, IPv4-mapped ones as IPv4. */
export interface ServerView {
  readonly server: string
  readonly local: string
  /** As accept() gave it; `family` tells its form. */
  readonly peer: string
  readonly getpeername: string | null
  readonly family: 'inet' | 'inet6' | 'v4-mapped'
}

/** One connection. `error` and `at`, the step that failed, are there when it is not ok. */
export interface ConnectResult {
  readonly ok: boolean
  /** errno's name, or `EOF`. */
  readonly error?: string
  readonly at?: string
  readonly local: string | null
  readonly peer: string | null
  readonly reply: ServerView | null
  /** What came instead of a reply. */
  readonly text?: string
  readonly echo?: string
  readonly ms: number
}

export interface CrowdResult {
  readonly count: number
  readonly ok: number
  readonly errors: Readonly<Record<string, number>>
}

export interface DnsReply {
  readonly from: string
  readonly answer: string | null
  readonly id: number
  /** The server that this id was sent to. */
  readonly asked: string
  readonly rcode: number
  readonly peer?: string
}

/** The summary: `error` is empty when every server answered. */
export interface DnsResult {
  readonly replies: readonly DnsReply[]
  readonly error: string
  readonly at: string
}

const toolsDir = fileURLToPath(new URL('../tools', import.meta.url))
const outDir = fileURLToPath(new URL('../../build/tools', import.meta.url))
let built: Promise<unknown> | undefined
let started = 0

/** Path of `sock` or `ztunnel-standin`, built when it is out of date. */
export async function toolPath(name: 'sock' | 'ztunnel-standin'): Promise<string> {
  built ??= run('make', ['-s', '-C', toolsDir], { timeoutMs: 120_000 })
  await built
  return `${outDir}/${name}`
}

/** The command that runs `command` there. `stdin` is a file. */
export function enter(
  { netns, cgroupDir = '' }: Where,
  command: readonly string[],
  stdin = '/dev/null',
): string[] {
  const script = 'set -e; test -z "$0" || echo 0 > "$0/cgroup.procs"; stdin=$1; shift; exec "$@" < "$stdin"'
  const enterNetns = netns ? ['nsenter', `--net=${netns.path}`, '--'] : []
  return ['sh', '-c', script, cgroupDir, stdin, ...enterNetns, ...command]
}

/** Whole lines: the last one may be half-written. */
export function parseLines<T>(text: string): T[] {
  const lines = text.split('\n').slice(0, -1)
  return lines.map((line) => JSON.parse(line) as T)
}

/** Lines of `sock ARGS...`, run to the end. */
export async function sock<T>(where: Where, args: readonly string[], timeoutMs = 30_000): Promise<T[]> {
  const [command = '', ...rest] = enter(where, [await toolPath('sock'), ...args])
  const { stdout, stderr, code } = await tryRun(command, rest, { timeoutMs })
  if (code !== 0) throw new Error(`sock ${args.join(' ')}: exit code ${code}\n${stdout}${stderr}`)
  return parseLines<T>(stdout)
}

export async function connect(
  where: Where,
  host: string,
  port: number,
  options: readonly string[] = [],
): Promise<ConnectResult> {
  const [result] = await sock<ConnectResult>(where, ['connect', host, String(port), ...options])
  if (!result) throw new Error('sock connect reported nothing')
  return result
}

/** `count` connections that are open at the same time. */
export async function connectCrowd(
  where: Where,
  host: string,
  port: number,
  count: number,
  options: readonly string[] = [],
): Promise<CrowdResult> {
  const args = ['connect', host, String(port), '--count', String(count), ...options]
  const [result] = await sock<CrowdResult>(where, args, 120_000)
  if (!result) throw new Error('sock connect reported nothing')
  return result
}

/** A DNS query from one socket to every server (`ip:port`, `ip`). */
export async function queryDns(
  where: Where,
  servers: readonly string[],
  options: readonly string[] = [],
): Promise<DnsResult> {
  const lines = await sock<object>(where, ['udp', ...servers, ...options])
  const { error, at } = lines.pop() as { error: string; at: string }
  return { replies: lines as DnsReply[], error, at }
}

/** A client in the background: with `--hold` it stays connected, with `--wait-stdin` it connects when told to. */
export class SockClient implements AsyncDisposable {
  readonly daemon: Daemon
  readonly #owned: OwnedDaemon

  private constructor(owned: OwnedDaemon) {
    this.daemon = owned.daemon
    this.#owned = owned
  }

  /** Resolves with the first line that `sock connect` prints: the socket is there, or even connected. */
  static async start(
    where: Where,
    host: string,
    port: number,
    options: readonly string[],
  ): Promise<SockClient> {
    const command = [await toolPath('sock'), 'connect', host, String(port), ...options]
    const owned = await startOwned('client', where, command)
    await waitForLog(owned, 'sock client', (log) => log.includes('\n'))
    return new SockClient(owned)
  }

  /** For `--wait-stdin`: connect now. */
  connect(): void {
    this.#owned.write('\n')
  }

  /** How the connection came about. */
  async result(): Promise<ConnectResult> {
    const find = (): ConnectResult | undefined => this.#lines<ConnectResult>().find((line) => 'ok' in line)
    return waitFor('the result of sock connect', find)
  }

  /** For `--hold`: when that is over, whether the connection still works. */
  async isAliveAfterHold(): Promise<boolean> {
    await this.daemon.exited
    return this.#lines<{ alive?: boolean }>().some((line) => line.alive === true)
  }

  stop(): Promise<void> {
    return this.#owned.stop()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  #lines<T extends object>(): T[] {
    return parseLines<T>(this.#owned.log())
  }
}

export interface SockServerOptions extends Where {
  readonly ports: readonly number[]
  /** Default: `sock`. */
  readonly name?: string
  /** More options of `sock serve`. */
  readonly args?: readonly string[]
}

/** A server that tells each client what it sees of it. */
export class SockServer implements AsyncDisposable {
  readonly daemon: Daemon
  readonly #owned: OwnedDaemon

  private constructor(owned: OwnedDaemon) {
    this.daemon = owned.daemon
    this.#owned = owned
  }

  static async start({ ports, name = 'sock', args = [], ...where }: SockServerOptions): Promise<SockServer> {
    const command = [await toolPath('sock'), 'serve', '--name', name, ...args]
    const withPorts = [...command, ...ports.flatMap((port) => ['--port', String(port)])]
    const owned = await startOwned('sock', where, withPorts)
    await waitForLog(owned, `sock server ${name}`, (log) => log.split('"listening"').length > ports.length)
    return new SockServer(owned)
  }

  /** Every connection so far. Not after stop(). */
  connections(): ServerView[] {
    const lines = parseLines<Partial<ServerView>>(this.#owned.log())
    return lines.filter((line): line is ServerView => line.peer !== undefined)
  }

  stop(): Promise<void> {
    return this.#owned.stop()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }
}

/** Wait for something in the log. A daemon that has ended before is an error, with its log. */
async function waitForLog(
  owned: OwnedDaemon,
  what: string,
  isThere: (log: string) => boolean,
): Promise<void> {
  await waitFor(what, () => {
    // Asked first: what a daemon that has ended has written is in the log.
    const hasExited = owned.daemon.hasExited()
    if (isThere(owned.log())) return true
    if (hasExited) throw new Error(`${what} has ended: ${owned.log()}`)
    return false
  })
}

/** A daemon with a directory of its own. */
export interface OwnedDaemon {
  readonly daemon: Daemon
  /** Its stdout and stderr so far. */
  readonly log: () => string
  /** To its stdin, which ends with the test process. */
  readonly write: (text: string) => void
  readonly stop: () => Promise<void>
}

/** Start a daemon that does not survive the test process: its cgroup is owned, the caller's or one of its own. */
export async function startOwned(
  label: string,
  where: Where,
  command: readonly string[],
): Promise<OwnedDaemon> {
  const dir = `${tmpdir()}/ambt${process.pid}-${label}${++started}`
  const removeDir = own({ kind: 'dir', path: dir })
  mkdirSync(dir)
  const [logFile, fifo] = [`${dir}/log`, `${dir}/stdin`]
  writeFileSync(logFile, '')
  await run('mkfifo', [fifo])
  // Both ends, so that neither this open nor that of the daemon waits.
  const stdin = openSync(fifo, 'r+')
  const cgroup = where.cgroupDir === undefined ? Cgroup.create() : undefined
  const cgroupDir = where.cgroupDir ?? cgroup?.dir ?? ''
  const [file = '', ...args] = enter({ ...where, cgroupDir }, command, fifo)
  const daemon = startDaemon(file, args, { logFile })
  const stop = registerCleanup(async () => {
    await daemon.stop()
    closeSync(stdin)
    await cgroup?.dispose()
    await removeDir()
  })
  const log = (): string => readFileSync(logFile, 'utf8')
  return { daemon, log, write: (text) => void writeSync(stdin, text), stop }
}
