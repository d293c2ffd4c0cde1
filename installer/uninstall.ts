// SPDX-License-Identifier: Apache-2.0
import { existsSync, realpathSync } from 'node:fs'
import { join } from 'node:path'
import * as conflist from './conflist.ts'
import * as files from './files.ts'
import { type ConfFile, HostError, type Step } from './files.ts'

export interface UninstallOptions {
  readonly binDir: string
  readonly confDir: string
}

/**
 * The steps of an uninstallation: those of an installation backwards, so that no runtime finds an entry
 * without its executable. What is gone already, a directory too, is no error. Throws HostError.
 */
export function planUninstall({ binDir, confDir }: UninstallOptions): Step[] {
  return [
    ...entrySteps(confDir),
    files.removeStep('executable', join(binDir, conflist.pluginType)),
    ...nativeSteps(binDir),
    ...files.leftoverSteps(binDir),
    ...files.leftoverSteps(confDir),
  ]
}

/** Every list of the directory: another one may have been the active one at the time of an installation. */
function entrySteps(confDir: string): Step[] {
  const steps = files.confFiles(confDir).filter(isOurs).flatMap(withdraw)
  return steps.length > 0 ? steps : [nothing('conflist', confDir)]
}

/** All versions: upgrades leave the native files of running plugins in place. */
function nativeSteps(binDir: string): Step[] {
  const dirs = files.namesIn(binDir).filter((name) => name.startsWith('.ambridge-'))
  if (dirs.length === 0) return [nothing('native files', binDir)]
  return dirs.map((name) => files.removeStep('native files', join(binDir, name)))
}

function isOurs({ path, kind }: ConfFile): boolean {
  if (kind !== 'list') return false
  const text = files.readText(path)
  const problem = conflist.problemOf(text, kind)
  if (problem === undefined) return conflist.entryOf(text) !== undefined
  // Our entry may be in it, and would be without its executable as soon as somebody repairs the file.
  if (!text.includes(`"${conflist.pluginType}"`)) return false
  throw new HostError(`${path} ${problem}`, `repair it, or take the entry "${conflist.pluginType}" out of it`)
}

/**
 * A list that an installation made of a .conf becomes that .conf again. It is known by its bytes: a list
 * that anybody changed since stays a list, which runtimes take just as well. A .json comes back as a .conf.
 */
function withdraw({ path }: ConfFile): Step[] {
  const list = conflist.withoutEntry(files.readText(path))
  const conf = conflist.unwrapConf(list)
  const write = (target: string, text: string) =>
    files.fileStep('conflist', target, Buffer.from(text), files.attributesOf(path))
  if (conf === undefined) return [write(realpathSync(path), list)]
  const remove = files.removeStep('conflist', path)
  const originals = ['conf', 'json'].map((extension) => path.replace(/conflist$/, extension))
  // The primary CNI has written it again, perhaps with changes: its own is the right one.
  if (originals.some((original) => existsSync(original))) return [remove]
  return [write(path.replace(/conflist$/, 'conf'), conf), remove]
}

function nothing(what: string, path: string): Step {
  return { what, path, change: 'none', absent: true, apply: () => {} }
}
