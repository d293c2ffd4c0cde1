// SPDX-License-Identifier: Apache-2.0
/** Keeps the plugin on the host, and its entry in the conflist, whatever the primary CNI writes. */
import { type FSWatcher, statSync, watch } from 'node:fs'
import type { Logger } from '../../src/log.ts'
import type { InstallSource } from '../commands/install.ts'
import { applySteps } from '../files.ts'
import { planInstall } from '../install.ts'
import type { Metrics } from './metrics.ts'
import type { AgentOptions } from './options.ts'

/** Writers of configuration write more than once. */
const settleMs = 100

export interface HostOptions {
  readonly source: InstallSource
  readonly install: NonNullable<AgentOptions['install']>
  readonly entry: string
  readonly log: Logger
  readonly metrics: Metrics
}

export class Host implements Disposable {
  readonly #options: HostOptions
  #watcher: FSWatcher | undefined
  /** Inode. */
  #watched: number | undefined
  #timer: NodeJS.Timeout | undefined
  #installed = false
  #problem: string | undefined = 'the plugin is not installed yet'

  constructor(options: HostOptions) {
    this.#options = options
  }

  /** Why the plugin is not in place; undefined: it is. */
  get problem(): string | undefined {
    return this.#problem
  }

  /** Puts in place what is missing or was changed. Never throws: the reason is in `problem`, and logged once. */
  keep(): void {
    const { log } = this.#options
    try {
      this.#watch()
      this.#apply()
      if (this.#problem !== undefined) log.info('plugin is in place')
      this.#problem = undefined
    } catch (err) {
      const { message, remedy = '' } = err as Error & { remedy?: string }
      if (this.#problem !== message) log.warn('plugin is not in place', { error: err, remedy })
      this.#problem = message
    }
  }

  [Symbol.dispose](): void {
    this.#watcher?.close()
    clearTimeout(this.#timer)
  }

  #apply(): void {
    const { source, install, entry, log, metrics } = this.#options
    if (source.executable === undefined)
      throw new Error('this is not the single executable: use --no-install')
    const steps = planInstall({ ...source, ...install, executable: source.executable, entry })
    const changes = steps.filter(({ change }) => change !== 'none')
    applySteps(steps)
    for (const { what, path, change } of changes) {
      log.info('host file written', { what, path, change })
      if (this.#installed) metrics.repairs.inc({ kind: 'host file' })
    }
    this.#installed = true
  }

  /** A directory that was made anew is another one. */
  #watch(): void {
    const { confDir } = this.#options.install
    const ino = statSync(confDir, { throwIfNoEntry: false })?.ino
    if (ino === undefined || ino !== this.#watched) this.#watcher?.close()
    if (ino !== undefined && ino !== this.#watched) {
      this.#watcher = watch(confDir, () => {
        clearTimeout(this.#timer)
        this.#timer = setTimeout(() => this.keep(), settleMs)
      }).on('error', () => {
        this.#watched = undefined
      })
    }
    this.#watched = ino
  }
}
