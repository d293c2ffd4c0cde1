// SPDX-License-Identifier: Apache-2.0
import type { Level } from '../../src/log.ts'
import { RemedyError } from '../../src/remedy.ts'

const levels: readonly string[] = ['error', 'warn', 'info', 'debug']
/** What `module` in a line of the log can be. */
export const modules = ['agent', 'k8s', 'zds', 'plugin', 'pods', 'host', 'reconcile'] as const
export type ModuleName = (typeof modules)[number]

export interface LogLevels {
  readonly level: Level
  levelOf(module: string): Level
}

/** `info`, or with modules of another level: `info,zds:debug`. */
export function parseLogLevels(text: string): LogLevels {
  const parts = text.split(',').map((part) => part.trim())
  const wrong = parts.find((part) => !isLevel(part) && !isModuleLevel(part))
  if (wrong !== undefined) {
    const remedy = `levels are ${levels.join(', ')}, modules ${modules.join(', ')}; such as: info,zds:debug`
    throw new RemedyError(`--log-level: ${JSON.stringify(wrong)} is no level`, remedy)
  }
  const level = parts.findLast(isLevel) ?? 'info'
  const own = new Map(parts.filter(isModuleLevel).map((part) => part.split(':') as [string, Level]))
  return { level: level as Level, levelOf: (module) => own.get(module) ?? (level as Level) }
}

function isLevel(part: string): boolean {
  return levels.includes(part)
}

function isModuleLevel(part: string): boolean {
  const [module = '', level = '', more] = part.split(':')
  return (modules as readonly string[]).includes(module) && isLevel(level) && more === undefined
}
