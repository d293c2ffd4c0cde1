// SPDX-License-Identifier: Apache-2.0
import { CniCode, CniError } from './errors.ts'
import type { CniCommand } from './types.ts'

export type Env = Readonly<Record<string, string | undefined>>

/** What the environment says about an attachment. */
export interface AttachmentEnv {
  readonly containerId: string
  readonly ifname: string
  readonly netns?: string
  readonly netnsOverride: boolean
  readonly args: Readonly<Record<string, string>>
}

const commands: readonly CniCommand[] = ['ADD', 'DEL', 'CHECK', 'GC', 'STATUS', 'VERSION']

/** What a container id may be at most; the pinned maps hold no longer one. */
const maxContainerId = 128
const maxIfnameBytes = 15

const remedies = {
  CNI_CONTAINERID: 'the id of the container',
  CNI_NETNS: 'the path of its network namespace, such as /var/run/netns/<name>',
  CNI_IFNAME: 'the name of its interface, such as eth0',
}
type Variable = keyof typeof remedies

export function commandOf(env: Env): CniCommand {
  const given = env['CNI_COMMAND'] ?? ''
  const command = commands.find((name) => name === given)
  if (command !== undefined) return command
  const message = given === '' ? 'CNI_COMMAND is not set' : `unknown CNI_COMMAND: ${JSON.stringify(given)}`
  throw invalid(message, `allowed values are ${commands.join(', ')}`)
}

export function attachmentEnv(command: CniCommand, env: Env, warnings: string[]): AttachmentEnv {
  const needed: Variable[] = ['CNI_CONTAINERID', 'CNI_IFNAME']
  if (command !== 'DEL') needed.push('CNI_NETNS')
  const missing = needed.filter((name) => !env[name])
  if (missing.length > 0) {
    const remedy = missing.map((name) => `${name} (${remedies[name]})`).join(', ')
    const message = `${missing.join(', ')} ${missing.length === 1 ? 'is' : 'are'} not set`
    throw invalid(message, `${command} needs ${remedy}; the container runtime sets it`)
  }
  if (!env['CNI_PATH']) warnings.push('CNI_PATH is not set')
  const netns = env['CNI_NETNS']
  return {
    containerId: containerId(command, env['CNI_CONTAINERID'] ?? ''),
    ifname: ifname(env['CNI_IFNAME'] ?? ''),
    ...(netns ? { netns } : {}),
    netnsOverride: ['1', 'true'].includes(env['CNI_NETNS_OVERRIDE']?.toLowerCase() ?? ''),
    args: cniArgs(command, env['CNI_ARGS'] ?? '', warnings),
  }
}

function containerId(command: CniCommand, id: string): string {
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(id)) {
    const rule = 'a letter or digit, then letters, digits, "_", "." or "-"'
    throw invalid(`invalid CNI_CONTAINERID: ${shown(id)}`, `expected ${rule}`)
  }
  // No ADD took a longer one, so a DEL finds nothing, which is success.
  if (id.length > maxContainerId && command !== 'DEL') {
    const details = `at most ${maxContainerId} characters are possible, found ${id.length}`
    throw invalid(`CNI_CONTAINERID is too long: ${shown(id)}`, details)
  }
  return id
}

function ifname(name: string): string {
  const fault = ifnameFault(name)
  if (fault === undefined) return name
  const rule = `1 to ${maxIfnameBytes} bytes without "/", ":" and blanks, not "." or ".."`
  throw invalid(`invalid CNI_IFNAME: ${shown(name)} ${fault}`, `expected ${rule}`)
}

function ifnameFault(name: string): string | undefined {
  if (name === '.' || name === '..') return 'is not the name of an interface'
  if (Buffer.byteLength(name) > maxIfnameBytes) return 'is too long'
  return /[\s/:\u0085]/.test(name) ? 'has "/", ":" or a blank in it' : undefined
}

/** "K=V;K=V". Unknown keys are other plugins' business. */
function cniArgs(command: CniCommand, text: string, warnings: string[]): Record<string, string> {
  const pairs: [string, string][] = []
  for (const pair of text.split(';')) {
    const at = pair.indexOf('=')
    if (at > 0) pairs.push([pair.slice(0, at), pair.slice(at + 1)])
    else if (pair !== '') tolerateOnDel(command, pair, warnings)
  }
  return Object.fromEntries(pairs)
}

/** What made an ADD fail must not keep the pod from going away. */
function tolerateOnDel(command: CniCommand, pair: string, warnings: string[]): void {
  const message = `invalid CNI_ARGS: ${shown(pair)} is not a pair`
  if (command !== 'DEL') throw invalid(message, 'expected KEY=VALUE pairs, separated by ";"')
  warnings.push(message)
}

function shown(text: string): string {
  return JSON.stringify(text.length <= 80 ? text : `${text.slice(0, 77)}...`)
}

function invalid(message: string, details: string): CniError {
  return new CniError(CniCode.invalidEnvironment, message, { details })
}
