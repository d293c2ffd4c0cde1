// SPDX-License-Identifier: Apache-2.0
/** The executable under test, as an administrator and as a container runtime run it. */
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { execa } from 'execa'
import { type ExecOptions, type ExecResult, run, tryRun } from './exec.ts'

const executable = fileURLToPath(new URL('../../dist/ambridge', import.meta.url))

/** Path of the executable that was built last. */
export function ambridgePath(): string {
  if (!existsSync(executable)) throw new Error(`${executable} is missing: run "npm run build"`)
  return executable
}

/** `ambridge ARGS...`, which has to succeed. Gives stdout. */
export function ambridge(args: readonly string[], options: ExecOptions = {}): Promise<string> {
  return run(ambridgePath(), args, options)
}

/** The same, whatever the exit code is. */
export function tryAmbridge(args: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
  return tryRun(ambridgePath(), args, options)
}

export async function ambridgeJson<T>(args: readonly string[], options: ExecOptions = {}): Promise<T> {
  return JSON.parse(await ambridge([...args, '-o', 'json'], options)) as T
}

export type CniCommand = 'ADD' | 'DEL' | 'CHECK' | 'GC' | 'STATUS' | 'VERSION'

export type Conf = Readonly<Record<string, unknown>>

export interface CniCall {
  readonly containerId?: string
  /** Path. */
  readonly netns?: string
  readonly ifname?: string
  readonly conf: Conf
  /** More environment, for instance CNI_ARGS. */
  readonly env?: Readonly<Record<string, string>>
}

export interface CniError {
  readonly cniVersion: string
  readonly code: number
  readonly msg: string
  readonly details?: string
}

export interface CniOutcome {
  readonly code: number
  /** What it printed: a result, an error object, or nothing. */
  readonly output: unknown
  readonly stderr: string
}

/** Run the plugin, whatever comes of it. What is not given is not in its environment. */
export async function tryCni(command: CniCommand, call: CniCall): Promise<CniOutcome> {
  const { stdout, stderr, code } = await tryRun(ambridgePath(), [], {
    env: { ...environmentOf(command, call), ...call.env },
    input: JSON.stringify(call.conf),
  })
  return { code, output: stdout === '' ? undefined : JSON.parse(stdout), stderr }
}

/** Run the plugin, and kill it after so long. Undefined: it was killed. */
export async function killCni(
  command: CniCommand,
  call: CniCall,
  afterMs: number,
): Promise<CniOutcome | undefined> {
  const { stdout, stderr, exitCode } = await execa(ambridgePath(), [], {
    env: { ...environmentOf(command, call), ...call.env },
    input: JSON.stringify(call.conf),
    reject: false,
    // 0 would be: never.
    timeout: Math.max(1, afterMs),
    killSignal: 'SIGKILL',
  })
  if (exitCode === undefined) return undefined
  return { code: exitCode, output: stdout === '' ? undefined : JSON.parse(stdout), stderr }
}

/** Run the plugin, which has to succeed. Gives its result. */
export async function cni(command: CniCommand, call: CniCall): Promise<unknown> {
  const { code, output, stderr } = await tryCni(command, call)
  if (code === 0) return output
  throw new Error(`CNI ${command}: exit code ${code}\n${JSON.stringify(output)}\n${stderr}`)
}

function environmentOf(command: CniCommand, { containerId, netns, ifname }: CniCall): Record<string, string> {
  return {
    CNI_COMMAND: command,
    CNI_PATH: '/opt/cni/bin',
    ...(containerId === undefined ? {} : { CNI_CONTAINERID: containerId }),
    ...(netns === undefined ? {} : { CNI_NETNS: netns }),
    ...(ifname === undefined ? {} : { CNI_IFNAME: ifname }),
  }
}
