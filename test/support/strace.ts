// SPDX-License-Identifier: Apache-2.0
/** System calls of a child process: recorded, and made to fail, by strace. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { type ExecOptions, type ExecResult, tryRun } from './exec.ts'

/** One call of the process's first thread. */
export interface SystemCall {
  readonly name: string
  /** The how-manyeth call of this name it is, from 1. */
  readonly count: number
  /** With its arguments, as strace writes them. */
  readonly text: string
}

export interface Fault {
  readonly call: SystemCall
  /** Name of an errno. */
  readonly error: string
}

/** Exit code 128 + N: a signal ended the process. */
export interface FaultResult extends ExecResult {
  /** The call that failed, as strace writes it; undefined when none was made to. */
  readonly injected: string | undefined
  /** The fault hit another thread than the first, too or instead. */
  readonly isAstray: boolean
}

/** The calls with one of these names, in order. The process has to succeed. */
export async function recordCalls(
  names: readonly string[],
  command: readonly string[],
  options: ExecOptions,
): Promise<SystemCall[]> {
  const { code, stdout, stderr, trace } = await strace(['-e', `trace=${names.join()}`], command, options)
  if (code !== 0) throw new Error(`${command.join(' ')}: exit code ${code}\n${stdout}${stderr}`)
  return callsIn(trace)
}

/** Run with one call failing. Each thread counts for itself: what other threads do after as many calls fails, too. */
export async function runWithFault(
  { call, error }: Fault,
  command: readonly string[],
  options: ExecOptions,
): Promise<FaultResult> {
  const inject = `inject=${call.name}:error=${error}:when=${call.count}`
  const { trace, ...result } = await strace(['-e', `trace=${call.name}`, '-e', inject], command, options)
  const lines = trace.split('\n')
  const threadOf = (line = '') => line.split(' ')[0]
  const injected = lines.filter((line) => line.endsWith('(INJECTED)'))
  const isAstray = injected.some((line) => threadOf(line) !== threadOf(lines[0]))
  return { ...result, injected: injected[0], isAstray }
}

async function strace(args: readonly string[], command: readonly string[], options: ExecOptions) {
  const dir = mkdtempSync(`${tmpdir()}/ambt${process.pid}-strace`)
  try {
    const file = `${dir}/trace`
    const complete = [
      'strace',
      '-f',
      '--seccomp-bpf',
      '-qq',
      '-s',
      '256',
      '-o',
      file,
      ...args,
      '--',
      ...command,
    ]
    // strace ends by the signal that ended the process.
    const result = await tryRun('sh', ['-c', '"$@"; exit $?', 'sh', ...complete], options)
    return { ...result, trace: readFileSync(file, 'utf8') }
  } finally {
    rmSync(dir, { recursive: true })
  }
}

/** `PID name(arguments) = result`. A call that another thread interrupts has its arguments in the first of two lines. */
function callsIn(trace: string): SystemCall[] {
  const counts = new Map<string, number>()
  const lines = trace.split('\n').map((line) => /^(\d+) +((\w+)\(.*)$/.exec(line))
  const first = lines[0]?.[1]
  return lines.flatMap((line) => {
    const [, pid, text = '', name = ''] = line ?? []
    if (pid === undefined || pid !== first) return []
    const count = (counts.get(name) ?? 0) + 1
    counts.set(name, count)
    return [{ name, count, text }]
  })
}
