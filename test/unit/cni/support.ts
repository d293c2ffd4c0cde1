// SPDX-License-Identifier: Apache-2.0
import type { Env } from '../../../src/cni/env.ts'
import type { CniError } from '../../../src/cni/errors.ts'
import { type Handlers, runCni } from '../../../src/cni/run.ts'
import type { CniRequest, ErrorObject } from '../../../src/cni/types.ts'

export const versions = ['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0']
export const commands = ['ADD', 'DEL', 'CHECK', 'GC', 'STATUS', 'VERSION'] as const
export type Command = (typeof commands)[number]

/** A complete environment, as a container runtime sets it. */
export function envFor(command: string, more: Env = {}): Env {
  return {
    CNI_COMMAND: command,
    CNI_CONTAINERID: 'c0ffee',
    CNI_NETNS: '/var/run/netns/blue',
    CNI_IFNAME: 'eth0',
    CNI_PATH: '/opt/cni/bin',
    CNI_ARGS: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart',
    ...more,
  }
}

/** A configuration that every command accepts, with `more` in it. */
export function netConf(more: Record<string, unknown> = {}): Record<string, unknown> {
  return { cniVersion: '1.1.0', name: 'pods', type: 'ambridge', prevResult: {}, ...more }
}

export interface Answer {
  readonly code: number
  readonly stdout: string
  /** How often stdout was written to. */
  readonly writes: number
  readonly errors: readonly CniError[]
  /** What reached a handler. */
  readonly requests: readonly CniRequest[]
}

/** runCni with handlers that remember what they were asked; `handlers` replaces some. */
export async function runInProcess(
  env: Env,
  stdin: unknown,
  handlers: Partial<Handlers> = {},
): Promise<Answer> {
  const requests: CniRequest[] = []
  const errors: CniError[] = []
  const written: string[] = []
  const remember = async (request: CniRequest): Promise<void> => void requests.push(request)
  const code = await runCni(
    { add: remember, del: remember, check: remember, gc: remember, status: remember, ...handlers },
    {
      env,
      stdin: () => (typeof stdin === 'string' ? stdin : JSON.stringify(stdin)),
      stdout: (text) => void written.push(text),
      logError: (error) => void errors.push(error),
    },
  )
  return { code, stdout: written.join(''), writes: written.length, errors, requests }
}

/** The error object that a failed command printed. */
export async function failure(env: Env, stdin: unknown, handlers?: Partial<Handlers>): Promise<ErrorObject> {
  const { code, stdout } = await runInProcess(env, stdin, handlers)
  if (code === 0) throw new Error(`an error was expected, but it succeeded with ${JSON.stringify(stdout)}`)
  return JSON.parse(stdout)
}
