// SPDX-License-Identifier: Apache-2.0
import { existsSync, realpathSync } from 'node:fs'
import { basename, join } from 'node:path'
import { validateNetConf } from '../src/schema/validators.gen.cjs'
import * as conflist from './conflist.ts'
import * as files from './files.ts'
import { type ConfFile, HostError, type Step } from './files.ts'

export interface NativeFile {
  /** File name, without a directory. */
  readonly name: string
  readonly bytes: () => Buffer
}

export interface InstallOptions {
  /** Where the container runtime looks for plugins. */
  readonly binDir: string
  /** Where it looks for network configuration. */
  readonly confDir: string
  /** Name of the file in confDir to extend. Absent: the one that the runtime uses. */
  readonly confName?: string
  /** JSON of our entry. Absent: an entry that is there is kept. */
  readonly entry?: string
  readonly version: string
  /** The executable to copy. */
  readonly executable: string
  readonly nativeFiles: readonly NativeFile[]
}

/** Which pods are enrolled is the agent's to say; the capabilities are what the plugin finds a pod by. */
export const defaultEntry = `{
  "type": "ambridge",
  "enrollment": { "source": "agent" },
  "capabilities": { "io.kubernetes.cri.pod-annotations": true, "cgroupPath": true }
}`

/** The versions of the CNI specification that the plugin speaks. */
export const chainableVersions: readonly string[] = ['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0']

/** Name of the directory of native files beside the executable. */
const nativeDirName = (version: string) => `.ambridge-${version}`

/**
 * The steps of an installation, in the order in which they may be seen: a runtime that finds our entry
 * finds the executable, which finds its native files. Throws HostError when one of them cannot be made.
 */
export function planInstall(options: InstallOptions): Step[] {
  const { binDir, confDir, executable } = options
  files.requireWritable(binDir, '--bin-dir')
  files.requireWritable(confDir, '--conf-dir')
  if (!existsSync(executable)) {
    throw new HostError(`${executable} does not exist`, 'name the built executable: --executable PATH')
  }
  return [
    ...files.leftoverSteps(binDir),
    ...files.leftoverSteps(confDir),
    ...nativeSteps(options),
    files.fileStep('executable', join(binDir, conflist.pluginType), executable, files.owned(0o755)),
    ...conflistSteps(options),
  ]
}

function nativeSteps({ binDir, version, nativeFiles }: InstallOptions): Step[] {
  if (nativeFiles.length === 0) return []
  const dir = join(binDir, nativeDirName(version))
  return [
    files.directoryStep('native files', dir, files.owned(0o755)),
    ...files.leftoverSteps(dir),
    ...nativeFiles.map(({ name, bytes }) =>
      files.fileStep('native file', join(dir, basename(name)), bytes(), files.owned(0o555)),
    ),
  ]
}

function conflistSteps({ confDir, confName, entry }: InstallOptions): Step[] {
  if (entry !== undefined) requireValidEntry(entry)
  const active = confName === undefined ? activeConf(confDir) : namedConf(confDir, confName)
  const text = files.readText(active.path)
  requireChainable(active.path, text)
  return active.kind === 'list' ? extend(active.path, text, entry) : wrap(active.path, text, entry)
}

function extend(path: string, text: string, entry: string | undefined): Step[] {
  return [listStep(realpathSync(path), path, text, withWanted(text, entry))]
}

/** A .conf holds one plugin: it becomes a list beside it, and goes when the list is in place. */
function wrap(path: string, text: string, entry: string | undefined): Step[] {
  const target = path.replace(/\.(conf|json)$/, '.conflist')
  const earlier = existsSync(target) ? earlierEntry(target, path) : undefined
  const wrapped = conflist.wrapConf(text)
  const list = withWanted(earlier === undefined ? wrapped : conflist.withEntry(wrapped, earlier), entry)
  return [listStep(target, path, text, list), files.removeStep('replaced configuration', path)]
}

/** Ours in a list that an earlier run made of the same .conf; the primary CNI has written that again. */
function earlierEntry(target: string, conf: string): string {
  const text = files.readText(target)
  const entry = conflist.problemOf(text, 'list') === undefined ? conflist.entryOf(text) : undefined
  if (entry !== undefined) return entry
  const remedy = `remove the one that is not in use, or choose: --conf-name ${basename(target)}`
  throw new HostError(`cannot make a list of ${conf}: ${target} exists`, remedy)
}

/** Writes `list`, made of the `text` that was read from `origin`, with that file's mode and owner. */
function listStep(path: string, origin: string, text: string, list: string): Step {
  const step = files.fileStep('conflist', path, Buffer.from(list), files.attributesOf(origin))
  const apply = () => {
    if (files.readText(origin) !== text) {
      throw new HostError(`${origin} changed while it was edited`, 'run it again')
    }
    step.apply()
  }
  return { ...step, apply }
}

function withWanted(list: string, wanted: string | undefined): string {
  const entry = conflist.entryOf(list)
  if (entry === undefined) return conflist.withEntry(list, wanted ?? defaultEntry)
  if (wanted === undefined || conflist.satisfies(entry, wanted)) return list
  return conflist.withEntry(list, wanted)
}

/** The first valid file by name, as runtimes choose. */
function activeConf(dir: string): ConfFile {
  const problems: string[] = []
  for (const file of files.confFiles(dir)) {
    const problem = problemOf(file)
    if (problem === undefined) return file
    problems.push(`${basename(file.path)} ${problem}`)
  }
  const why = problems.length === 0 ? '' : `: ${problems.join('; ')}`
  const remedy =
    'install the primary CNI first: it writes a .conflist with "name" and "plugins", or a .conf or .json ' +
    'with "name" and "type"; or name the directory that the container runtime uses: --conf-dir DIR'
  throw new HostError(`no valid network configuration in ${dir}${why}`, remedy)
}

/** An earlier run may have made a .conflist of the .conf, and its uninstallation the reverse. */
function namedConf(dir: string, name: string): ConfFile {
  const other = name.endsWith('.conf') ? `${name}list` : name.replace(/\.conflist$/, '.conf')
  const file = files.confFiles(dir).find(({ path }) => [name, other].includes(basename(path)))
  if (file === undefined) {
    throw new HostError(
      `no ${name} in ${dir}`,
      'name a .conflist, .conf or .json of that directory: --conf-name NAME',
    )
  }
  const problem = problemOf(file)
  if (problem === undefined) return file
  throw new HostError(`${file.path} ${problem}`, 'repair it, or name another: --conf-name NAME')
}

function problemOf({ path, kind }: ConfFile): string | undefined {
  try {
    return conflist.problemOf(files.readText(path), kind)
  } catch (err) {
    return err instanceof HostError ? `cannot be used: ${err.message}` : 'cannot be used'
  }
}

/** A runtime that is told a version which the plugin does not speak refuses every pod of the node. */
function requireChainable(path: string, text: string): void {
  const versions = conflist.cniVersionsOf(text)
  if (versions.some((version) => chainableVersions.includes(version))) return
  const found = versions.length === 0 ? 'no cniVersion' : `cniVersion ${versions.join(', ')}`
  const remedy = `set it to one of ${chainableVersions.join(', ')}, where the primary CNI takes it from`
  throw new HostError(`${path} has ${found}, so nothing can be chained to it`, remedy)
}

/** Throws HostError. */
export function requireValidEntry(entry: string): void {
  const problem = entryProblem(entry)
  if (problem === undefined) return
  throw new HostError(
    `the entry ${problem}`,
    `pass a JSON object such as ${defaultEntry.replace(/\s+/g, ' ')}`,
  )
}

function entryProblem(entry: string): string | undefined {
  const syntax = conflist.syntaxProblem(entry)
  if (syntax !== undefined) return syntax
  const value: unknown = JSON.parse(entry)
  if (!conflist.isObject(value)) return 'is not a JSON object'
  if (value['type'] !== conflist.pluginType) return `must have "type": "${conflist.pluginType}"`
  // The runtime adds these two.
  if (validateNetConf({ ...value, cniVersion: '1.1.0', name: 'any' })) return undefined
  const errors = validateNetConf.errors ?? []
  return errors.map(({ instancePath, message }) => `has ${instancePath.slice(1)} that ${message}`).join('; ')
}
