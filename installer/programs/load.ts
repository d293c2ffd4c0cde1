// SPDX-License-Identifier: Apache-2.0
/** `ambridge load`: programs, maps and links under bpffs. State outlives this process; running it again repairs and upgrades. */
import { closeSync, existsSync, mkdirSync, renameSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path/posix'
import { crc32 } from 'node:zlib'
import { upgradeGuard } from '../../src/bpf/guard.ts'
import { probeInbound, upgradeInbound } from '../../src/bpf/inbound.ts'
import { openPin, pin } from '../../src/bpf/link.ts'
import type { LoadedObject } from '../../src/bpf/loaded-object.ts'
import { openObject } from '../../src/bpf/object.ts'
import { Store } from '../../src/bpf/store.ts'
import { isBpffs, type PinPaths, pinPaths } from '../../src/linux/bpffs.ts'
import { DirLock } from '../../src/linux/lock.ts'
import { nativeBytes } from '../../src/native.ts'
import { guardPins, linkPin } from '../../src/pods/withdraw.ts'
import { RemedyError } from '../../src/remedy.ts'
import { explainLoadError, notAllowed, requireNetnsCookie } from './features.ts'
import { attachLinks } from './links.ts'
import { type Plan, planFor } from './plan.ts'
import { collectSteps, type Report, type Step } from './report.ts'
import type { LoadOptions } from './settings.ts'

/** Idempotent. Throws RemedyError with nothing attached when the node cannot do it. */
export function load(options: LoadOptions): Step[] {
  requireBpffs(options.bpffs)
  requireNetnsCookie()
  const { steps, report } = collectSteps()
  using lock = lockDirectory(options.bpffs, report)
  void lock
  const paths = makeDirectories(options.bpffs, report)
  using loaded = loadPrograms(paths, report)
  using store = new Store(paths.maps)
  const plan = planOrUndo(options, store, loaded, paths)
  // Settings first: a program that runs before they are there would not know the proxy.
  store.settings.set(0, plan.settings)
  plan.registerCgroups(report)
  attachLinks(plan.links, paths.links, (program) => loaded.programFd(program), report)
  upgradePods(store, options.bpffs, loaded.isUpgrade, report)
  // Last: until then, no pod is enrolled, and the next load begins anew.
  store.settings.set(0, { ...plan.settings, objects: objectsCrc() })
  report('settings', plan.summary, 'set')
  return steps
}

function requireBpffs(bpffs: string): void {
  const parent = dirname(bpffs)
  if (process.geteuid?.() !== 0) throw notAllowed(new Error('not root'))
  if (isBpffs(parent)) return
  throw new RemedyError(`bpffs is not mounted at ${parent}`, `mount it: mount -t bpf bpf ${parent}`)
}

/** Makes the directory if need be, and again if an unload that runs at the same time removes it. */
function lockDirectory(bpffs: string, report: Report): DirLock {
  for (;;) {
    const isNew = mkdirSync(bpffs, { recursive: true, mode: 0o700 }) !== undefined
    const lock = DirLock.take(bpffs)
    if (isNew) report('directory', bpffs, 'made')
    if (lock !== undefined) return lock
  }
}

function makeDirectories(bpffs: string, report: Report): PinPaths {
  const paths = pinPaths(bpffs)
  for (const dir of Object.values(paths)) {
    if (existsSync(dir)) continue
    mkdirSync(dir, { mode: 0o700 })
    report('directory', dir, 'made')
  }
  return paths
}

/** Tells one build of the programs from another. */
function objectsCrc(): number {
  return ['ambridge', 'inbound', 'guard'].reduce((crc, name) => crc32(nativeBytes(`${name}.bpf.o`), crc), 0)
}

interface Programs extends Disposable {
  readonly isFirst: boolean
  readonly isUpgrade: boolean
  programFd(program: string): number
}

/** The pinned programs if they are of this build; else loads and pins them, over the maps that are there. */
function loadPrograms(paths: PinPaths, report: Report): Programs {
  const object = openAmbridge(paths.maps)
  const names = object.programs()
  const known = loadedCrc(paths.maps)
  if (known === objectsCrc() && names.every((name) => existsSync(join(paths.progs, name)))) {
    object[Symbol.dispose]()
    report('program', `${names.length} programs`, 'already there')
    return pinnedPrograms(paths.progs)
  }
  try {
    const loaded = object.load()
    probeInbound(paths.maps)
    pinPrograms(loaded, names, paths.progs)
    report('program', `${names.length} programs`, known === undefined ? 'loaded' : 'upgraded')
    const isFirst = known === undefined
    return Object.assign(loaded, { isFirst, isUpgrade: !isFirst })
  } catch (err) {
    if (known === undefined) removeAll(paths)
    throw explainLoadError(err)
  } finally {
    object[Symbol.dispose]()
  }
}

function openAmbridge(mapsDir: string) {
  return openObject(nativeBytes('ambridge.bpf.o'), { name: 'ambridge', pinRoot: mapsDir, captureLog: true })
}

function loadedCrc(mapsDir: string): number | undefined {
  if (!existsSync(join(mapsDir, 'settings'))) return undefined
  using store = new Store(mapsDir)
  return store.settings.get(0)?.objects || undefined
}

/** A failed first load leaves nothing behind. */
function removeAll(paths: PinPaths): void {
  rmSync(dirname(paths.maps), { recursive: true, force: true })
}

function pinPrograms(loaded: LoadedObject, names: readonly string[], dir: string): void {
  for (const name of names) {
    const path = join(dir, name)
    rmSync(`${path}_new`, { force: true })
    pin(loaded.programFd(name), `${path}_new`)
    renameSync(`${path}_new`, path)
  }
}

function pinnedPrograms(dir: string): Programs {
  const stack = new DisposableStack()
  return {
    isFirst: false,
    isUpgrade: false,
    programFd: (program) => {
      const fd = openPin(join(dir, program))
      stack.defer(() => closeSync(fd))
      return fd
    },
    [Symbol.dispose]: () => stack.dispose(),
  }
}

/** What cannot be attached as asked is not left loaded, when this was the first load. */
function planOrUndo(options: LoadOptions, store: Store, { isFirst }: Programs, paths: PinPaths): Plan {
  try {
    return planFor(options, store)
  } catch (err) {
    if (isFirst) removeAll(paths)
    throw err
  }
}

function upgradePods(store: Store, bpffs: string, isUpgrade: boolean, report: Report): void {
  if (!isUpgrade) return
  const { maps: mapsDir } = pinPaths(bpffs)
  let count = 0
  for (const [key, { netns: cookie }] of store.attachments.entries()) {
    for (const pin of guardPins(bpffs, key)) upgradeGuard(cookie, pin, mapsDir)
    const pinPath = linkPin(bpffs, key)
    if (!existsSync(pinPath)) continue
    upgradeInbound({ cookie, mode: store.pods.get(cookie)?.mode ?? 0, pinPath, mapsDir })
    count++
  }
  report('pods', `${count} pods`, 'upgraded')
}
