// SPDX-License-Identifier: Apache-2.0
/**
 * Edits of CNI configuration files, pure. They work on the text: whatever is not ours stays byte for byte,
 * also numbers that a double cannot hold, repeated keys and the order of keys.
 */

import { isDeepStrictEqual } from 'node:util'
import { syntaxErrorAt } from '../src/json-syntax.ts'

export const pluginType = 'ambridge'

/** `list`: .conflist. `single`: .conf and .json, one plugin's network configuration. */
export type ConfKind = 'list' | 'single'

type JsonObject = Record<string, unknown>

/** Where a member of an object or an element of an array stands in the text; `key` is '' for elements. */
interface Item {
  readonly key: string
  readonly start: number
  readonly end: number
}

/** Why a container runtime would not take the text, as the rest of a sentence; undefined if it would. */
export function problemOf(text: string, kind: ConfKind): string | undefined {
  const syntax = syntaxProblem(text)
  if (syntax !== undefined) return syntax
  const value: unknown = JSON.parse(text)
  if (!isObject(value)) return 'is not a JSON object'
  if (!isName(value['name'])) return 'has no "name"'
  if (kind === 'single') return isName(value['type']) ? undefined : 'has no "type"'
  const { plugins } = value
  if (!Array.isArray(plugins) || plugins.length === 0) return 'has no "plugins"'
  return plugins.every((p) => isObject(p) && isName(p['type'])) ? undefined : 'has a plugin without "type"'
}

/** `is not JSON` with the place, or undefined. */
export function syntaxProblem(text: string): string | undefined {
  try {
    JSON.parse(text)
    return undefined
  } catch {
    const at = syntaxErrorAt(text)
    const line = text.slice(0, at).split('\n').length
    const column = at - text.lastIndexOf('\n', at - 1)
    return `is not JSON: line ${line}, column ${column} (position ${at})`
  }
}

/** The versions of the specification that a runtime may choose from. */
export function cniVersionsOf(text: string): string[] {
  const { cniVersion, cniVersions } = JSON.parse(text) as JsonObject
  const all: unknown[] = [cniVersion, ...(Array.isArray(cniVersions) ? cniVersions : [])]
  return all.filter((version) => typeof version === 'string')
}

/** Our entry in the list, as text whose lines are not indented; undefined if there is none. */
export function entryOf(list: string): string | undefined {
  const ours = pluginsOf(list).find((plugin) => isOurs(list, plugin))
  if (ours === undefined) return undefined
  const entry = list.slice(ours.start, ours.end)
  const indent = /\n[ \t]*(?=\S*$)/.exec(entry)?.[0] ?? '\n'
  return entry.replaceAll(indent, '\n')
}

/** Whether `entry` has each field that `wanted` has, with the same value. */
export function satisfies(entry: string, wanted: string): boolean {
  const have = JSON.parse(entry) as JsonObject
  const fields = Object.entries(JSON.parse(wanted) as JsonObject)
  return fields.every(([key, value]) => isDeepStrictEqual(have[key], value))
}

/** The list with `entry` in the place of ours, or as its last plugin. Laid out as the plugin before it. */
export function withEntry(list: string, entry: string): string {
  const plugins = pluginsOf(list)
  const ours = plugins.find((plugin) => isOurs(list, plugin))
  const model = ours ?? plugins.at(-1)
  if (model === undefined) throw new RangeError('a list without plugins has no last plugin')
  const gap = /\s*$/.exec(list.slice(0, model.start))?.[0] ?? ''
  // A string in JSON holds no raw newline, so lines can be joined and indented blindly.
  const fitted = gap.includes('\n')
    ? entry.replaceAll('\n', gap.slice(gap.lastIndexOf('\n')))
    : entry.replace(/\s*\n\s*/g, ' ')
  if (ours) return list.slice(0, ours.start) + fitted + list.slice(ours.end)
  return `${list.slice(0, model.end)},${gap}${fitted}${list.slice(model.end)}`
}

/** The list without any entry of ours. Undoes `withEntry` to the byte. */
export function withoutEntry(list: string): string {
  const plugins = pluginsOf(list)
  const index = plugins.findIndex((plugin) => isOurs(list, plugin))
  const ours = plugins[index]
  if (ours === undefined) return list
  // It goes with the comma before it; the first one with the comma after it.
  const start = plugins[index - 1]?.end ?? ours.start
  const end = index > 0 ? ours.end : (plugins[1]?.start ?? ours.end)
  return withoutEntry(list.slice(0, start) + list.slice(end))
}

/** A list whose only plugin is `conf`, as it is: the list that libcni makes of a .conf in memory. */
export function wrapConf(conf: string): string {
  const members = membersOf(conf)
  const head = ['cniVersion', 'name'].flatMap((key) => {
    const member = members.findLast((m) => m.key === key)
    return member ? [`  "${key}": ${conf.slice(member.start, member.end)},\n`] : []
  })
  return `{\n${head.join('')}  "plugins": [\n    ${conf.trim().replaceAll('\n', '\n    ')}\n  ]\n}\n`
}

/** The .conf of which `wrapConf` made the list; undefined for every other list. */
export function unwrapConf(list: string): string | undefined {
  const [only, ...others] = pluginsOf(list)
  if (only === undefined || others.length > 0) return undefined
  const conf = list.slice(only.start, only.end).replaceAll('\n    ', '\n')
  return wrapConf(conf) === list ? `${conf}\n` : undefined
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isName(value: unknown): boolean {
  return typeof value === 'string' && value !== ''
}

function isOurs(list: string, plugin: Item): boolean {
  return (JSON.parse(list.slice(plugin.start, plugin.end)) as JsonObject)['type'] === pluginType
}

function pluginsOf(list: string): Item[] {
  const plugins = membersOf(list).findLast(({ key }) => key === 'plugins')
  return plugins ? itemsOf(list, plugins.start) : []
}

function membersOf(text: string): Item[] {
  return itemsOf(text, text.search(/\S/))
}

/** The items of the object or array whose bracket is at `open`. The text must be valid JSON. */
function itemsOf(text: string, open: number): Item[] {
  const found: Item[] = []
  let [depth, key, start, end] = [1, '', -1, -1]
  for (const { 0: token, index } of text.slice(open + 1).matchAll(tokens)) {
    const at = open + 1 + index
    if (token === ']' || token === '}') depth--
    if (depth === 0 || (depth === 1 && token === ',')) {
      if (start >= 0) found.push({ key, start, end })
      if (depth === 0) break
      start = -1
    } else if (depth === 1 && token === ':') {
      key = JSON.parse(text.slice(start, end)) as string
      start = -1
    } else {
      if (start < 0) start = at
      end = at + token.length
    }
    if (token === '[' || token === '{') depth++
  }
  return found
}

/** A string, a bracket, a separator, or a number or literal. */
const tokens = /"[^"\\]*(?:\\.[^"\\]*)*"|[[\]{},:]|[^\s[\]{},:"]+/g
