// SPDX-License-Identifier: Apache-2.0
/** Child processes of tests: every one has a timeout or is a daemon whose end somebody owns. */
import { execa, type Options } from 'execa'

export interface ExecOptions {
  readonly timeoutMs?: number
  readonly env?: Readonly<Record<string, string>>
  readonly input?: string
  readonly cwd?: string
}

export interface ExecResult {
  readonly stdout: string
  readonly stderr: string
  readonly code: number
}

/** Run to the end, whatever the exit code is. A process that could not start, was killed or took too long is an error. */
export async function tryRun(
  command: string,
  args: readonly string[],
  options: ExecOptions = {},
): Promise<ExecResult> {
  const { timeoutMs = 30_000, ...rest } = options
  const settings = {
    ...rest,
    timeout: timeoutMs,
    killSignal: 'SIGKILL',
    reject: false,
    stripFinalNewline: false,
    ...(options.input === undefined ? { stdin: 'ignore' } : {}),
  } satisfies Options
  const result = await execa(command, [...args], settings)
  if (result.exitCode === undefined) {
    throw new Error(`${result.shortMessage ?? command}\n${result.stdout}${result.stderr}`)
  }
  return { stdout: result.stdout, stderr: result.stderr, code: result.exitCode }
}

/** Run to the end and expect exit code 0. Gives stdout. */
export async function run(
  command: string,
  args: readonly string[],
  options: ExecOptions = {},
): Promise<string> {
  const { stdout, stderr, code } = await tryRun(command, args, options)
  if (code !== 0) throw new Error(`${[command, ...args].join(' ')}: exit code ${code}\n${stdout}${stderr}`)
  return stdout
}

/** A long-running process in a session of its own, so that Ctrl-C reaches its owner alone. */
export interface Daemon {
  readonly pid: number
  readonly exited: Promise<void>
  hasExited(): boolean
  /** After its end; undefined: a signal ended it. */
  exitCode(): number | undefined
  /** SIGTERM, and SIGKILL when it has not ended in time. */
  stop(graceMs?: number): Promise<void>
}

export function startDaemon(
  command: string,
  args: readonly string[],
  options: { readonly logFile: string; readonly env?: Readonly<Record<string, string>> },
): Daemon {
  // Written by the child itself: a pipe would break with this process.
  const child = execa('sh', ['-c', 'exec "$@" >> "$0" 2>&1', options.logFile, command, ...args], {
    ...(options.env ? { env: options.env } : {}),
    stdio: 'ignore',
    detached: true,
    cleanup: false,
    buffer: false,
    reject: false,
  })
  if (child.pid === undefined) throw new Error(`cannot start ${command}`)
  let ended = false
  let code: number | undefined
  const exited = child.then(({ exitCode }) => {
    ended = true
    code = exitCode
  })
  return {
    pid: child.pid,
    exited,
    hasExited: () => ended,
    exitCode: () => code,
    stop: async (graceMs = 5_000) => {
      child.kill('SIGTERM')
      const timer = setTimeout(() => child.kill('SIGKILL'), graceMs)
      await exited
      clearTimeout(timer)
    },
  }
}

/** Poll until `probe` gives something else than undefined or false. */
export async function waitFor<T>(
  what: string,
  probe: () => T | undefined | false | Promise<T | undefined | false>,
  { timeoutMs = 30_000, everyMs = 20 } = {},
): Promise<T> {
  const deadline = Date.now() + timeoutMs
  for (;;) {
    const value = await probe()
    if (value !== undefined && value !== false) return value
    if (Date.now() > deadline) throw new Error(`${what}: not within ${timeoutMs} ms`)
    await new Promise((resolve) => setTimeout(resolve, everyMs))
  }
}
