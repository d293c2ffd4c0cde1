// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs'
import { getAssetKeys, getRawAsset, isSea } from 'node:sea'
import { Command, Option } from 'commander'
import { applySteps, HostError, type Step } from '../files.ts'
import { type NativeFile, planInstall } from '../install.ts'

/** Set by the bundler. */
declare const __VERSION__: string

/** What the command takes from the executable in which it runs. */
export interface InstallSource {
  readonly version: string
  /** Absent when this process is not the single executable. */
  readonly executable?: string
  readonly nativeFiles: readonly NativeFile[]
}

export interface StepOptions {
  readonly dryRun?: boolean
  readonly output: 'text' | 'json'
}

interface InstallFlags extends StepOptions {
  readonly binDir: string
  readonly confDir: string
  readonly confName?: string
  readonly entry?: string
  readonly executable?: string
}

/** `ambridge install`: native files, executable and conflist entry onto this host. */
export function installCommand(source: InstallSource = ownSource()): Command {
  return hostCommand('install')
    .description('put the plugin on this host, last in the chain of the primary CNI')
    .option('--conf-name <name>', 'file of --conf-dir to extend (default: the first valid one by name)')
    .option('--entry <file|json>', 'entry of the plugin (default: keep the one that is there)')
    .option('--executable <path>', 'executable to copy (default: this one)')
    .action(({ entry, executable = source.executable, ...flags }: InstallFlags, command: Command) => {
      if (executable === undefined) {
        throw new HostError('this is not the single executable', 'name the built one: --executable PATH')
      }
      const json = entry === undefined ? {} : { entry: entryText(entry) }
      runSteps(planInstall({ ...source, ...flags, ...json, executable }), flags, command)
    })
}

/** The options that installing and uninstalling have in common. */
export function hostCommand(name: string): Command {
  return new Command(name)
    .option('--bin-dir <dir>', 'plugins of the container runtime', '/opt/cni/bin')
    .option('--conf-dir <dir>', 'network configuration of the container runtime', '/etc/cni/net.d')
    .option('--dry-run', 'say what would be done, change nothing')
    .addOption(new Option('-o, --output <format>', 'output format').choices(['text', 'json']).default('text'))
}

/** Takes the steps, except in a dry run, and says which on the command's output. */
export function runSteps(
  steps: readonly Step[],
  { dryRun = false, output }: StepOptions,
  command: Command,
): void {
  if (!dryRun) applySteps(steps)
  const lines = steps.map((step) => `${outcome(step, dryRun).padEnd(14)}  ${step.what}  ${step.path}\n`)
  const facts = steps.map(({ what, path, change }) => ({ what, path, change }))
  const text = output === 'json' ? `${JSON.stringify({ dryRun, steps: facts })}\n` : lines.join('')
  command.configureOutput().writeOut?.(text)
}

function outcome({ change, absent }: Step, dryRun: boolean): string {
  if (change === 'none') return absent ? 'already gone' : 'already there'
  return dryRun ? `would ${change}` : `${change.replace(/e$/, '')}ed`
}

/** A file, or the JSON itself. */
export function entryText(entry: string): string {
  if (entry.trimStart().startsWith('{')) return entry.trim()
  try {
    return readFileSync(entry, 'utf8').trim()
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    throw new HostError(
      `cannot read ${entry}: ${code}`,
      'pass a file or a JSON object: --entry FILE|JSON',
      cause,
    )
  }
}

/** What the single executable carries; in development, nothing. */
export function ownSource(): InstallSource {
  const version = typeof __VERSION__ === 'undefined' ? 'development' : __VERSION__
  if (!isSea()) return { version, nativeFiles: [] }
  const bytes = (name: string) => Buffer.from(getRawAsset(name))
  const names = getAssetKeys().filter((name) => /\.(node|so|o)$/.test(name))
  const nativeFiles = names.map((name) => ({ name, bytes: () => bytes(name) }))
  return { version, executable: process.execPath, nativeFiles }
}
