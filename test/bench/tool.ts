// SPDX-License-Identifier: Apache-2.0
/** `build/tools/bench`, the load generator, and what it talks to. All of it runs on one CPU: so the scheduler adds little. */
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { run, waitFor } from '../support/exec.ts'
import { enter, type OwnedDaemon, startOwned, toolPath, type Where } from '../support/sock.ts'

const toolsDir = fileURLToPath(new URL('../tools', import.meta.url))
const outDir = fileURLToPath(new URL('../../build/tools', import.meta.url))
const onOneCpu = ['taskset', '-c', String(availableParallelism() - 1)]

/** The port that `startEcho` is usually given. */
export const echoPort = 9000

/** `ns`: in all. */
export interface Count {
  readonly count: number
  readonly ns: number
}

export interface Latencies {
  readonly count: number
  readonly p50_ns: number
  readonly p99_ns: number
}

/** `peak_kib`: resident memory. */
export interface Cost {
  readonly code: number
  readonly ns: number
  readonly cpu_us: number
  readonly peak_kib: number
}

let built: Promise<unknown> | undefined

/** Path of something that `make bench` makes. */
export async function benchPath(name: 'bench' | 'reference.bpf.o'): Promise<string> {
  built ??= run('make', ['-s', '-C', toolsDir, 'bench'], { timeoutMs: 120_000 })
  await built
  return `${outDir}/${name}`
}

/** `bench ARGS...`, run to the end. */
export async function bench<T = Count>(where: Where, args: readonly (string | number)[]): Promise<T> {
  const tool = [...onOneCpu, await benchPath('bench'), ...args.map(String)]
  const [command = '', ...rest] = enter(where, tool)
  return JSON.parse(await run(command, rest)) as T
}

/** A server that sends back what it gets. The caller stops it. */
export async function startEcho(where: Where, port: number): Promise<OwnedDaemon> {
  const owned = await startOwned('echo', where, [
    ...onOneCpu,
    await benchPath('bench'),
    'serve',
    String(port),
  ])
  await waitForLog(owned, 'the echo server', (log) => log.includes('listening'))
  return owned
}

/** A stand-in for ztunnel that keeps no log. What it does not know the original destination of goes to `upstream`. */
export async function startProxy(
  where: Where,
  upstream: string,
  netns: readonly { readonly path: string }[],
): Promise<OwnedDaemon> {
  const options = ['--log', '/dev/null', '--upstream', upstream]
  const owned = await startOwned('proxy', where, [...onOneCpu, await toolPath('ztunnel-standin'), ...options])
  for (const { path } of netns) owned.write(`add ${path}\n`)
  await waitForLog(owned, 'the proxy', (log) => log.split('"ack"').length > netns.length)
  if (/"error":"[^"]/.test(owned.log())) {
    await owned.stop()
    throw new Error(`the proxy cannot listen: ${owned.log()}`)
  }
  return owned
}

async function waitForLog(
  owned: OwnedDaemon,
  what: string,
  isThere: (log: string) => boolean,
): Promise<void> {
  await waitFor(what, () => {
    if (owned.daemon.hasExited()) throw new Error(`${what} has ended: ${owned.log()}`)
    return isThere(owned.log())
  })
}
