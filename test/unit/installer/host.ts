// SPDX-License-Identifier: Apache-2.0
import {
  chmodSync,
  chownSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { applySteps, HostError, type Step } from '../../../installer/files.ts'
import { type InstallOptions, planInstall } from '../../../installer/install.ts'
import { planUninstall } from '../../../installer/uninstall.ts'

/** The directories of a host, in a temporary directory that goes with the test. */
export class Host {
  readonly dir = mkdtempSync(join(tmpdir(), 'ambridge-host-'))
  readonly binDir = join(this.dir, 'bin')
  readonly confDir = join(this.dir, 'net.d')
  readonly executable = join(this.dir, 'built')

  constructor() {
    chmodSync(this.dir, 0o755)
    for (const dir of [this.binDir, this.confDir]) mkdirSync(dir)
    writeFileSync(this.executable, 'the executable')
    onTestFinished(() => rmSync(this.dir, { recursive: true }))
  }

  options(more: Partial<InstallOptions> = {}): InstallOptions {
    const { binDir, confDir, executable } = this
    const nativeFiles = ['koffi.node', 'libbpf.so'].map((name) => ({ name, bytes: () => Buffer.from(name) }))
    return { binDir, confDir, executable, version: '1.2.3', nativeFiles, ...more }
  }

  /** What was done, as `change name`. */
  install(more: Partial<InstallOptions> = {}): string[] {
    return this.#take(planInstall(this.options(more)))
  }

  uninstall(): string[] {
    return this.#take(planUninstall(this))
  }

  putConf(name: string, text: string): void {
    writeFileSync(join(this.confDir, name), text)
  }

  conf(name: string): string {
    return readFileSync(join(this.confDir, name), 'utf8')
  }

  mode(...path: string[]): string {
    return (lstatSync(join(this.dir, ...path)).mode & 0o7777).toString(8)
  }

  uid(path: string): number {
    return lstatSync(join(this.dir, path)).uid
  }

  chown(path: string, id: number): void {
    chownSync(join(this.dir, path), id, id)
  }

  mtimeMs(path: string): number {
    return lstatSync(join(this.dir, path)).mtimeMs
  }

  removeConf(): void {
    for (const name of readdirSync(this.confDir)) rmSync(join(this.confDir, name))
  }

  /** Every path below bin and net.d. */
  listing(): string[] {
    const all = readdirSync(this.dir, { recursive: true, encoding: 'utf8' })
    return all.filter((path) => /^(bin|net\.d)\//.test(path)).sort()
  }

  /** The listing with mode and content. */
  everything(): string[] {
    return this.listing().map((path) => `${path} ${this.mode(path)} ${this.#content(path)}`)
  }

  /** What `fn` throws, with ~ for the host's directory. */
  failure(fn: () => unknown): { message: string; remedy: string } {
    try {
      fn()
    } catch (err) {
      if (!(err instanceof HostError)) throw err
      const short = (text: string) => text.replaceAll(this.dir, '~')
      return { message: short(err.message), remedy: short(err.remedy) }
    }
    throw new Error('nothing was thrown')
  }

  #content(path: string): string {
    const file = join(this.dir, path)
    return lstatSync(file).isFile() ? readFileSync(file, 'utf8') : ''
  }

  #take(steps: Step[]): string[] {
    applySteps(steps)
    return steps.map(({ change, path }) => `${change} ${path.slice(this.dir.length + 1)}`)
  }
}

export function testdata(name: string): string {
  return readFileSync(new URL(`testdata/${name}`, import.meta.url), 'utf8')
}
