// SPDX-License-Identifier: Apache-2.0
/** Container runtimes that the machine does not have: fetched once into build/cache, and never installed. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { type ExecResult, tryRun } from './exec.ts'

const cacheDir = fileURLToPath(new URL('../../build/cache', import.meta.url))
const script = (name: string) => fileURLToPath(new URL(`./runtime/${name}`, import.meta.url))

const podmanPackages = [
  ...['podman', 'conmon', 'golang-github-containers-image', 'golang-github-containers-common'],
  ...['libgpgme11', 'libsubid4'],
]

interface Recipe {
  /** Fills a directory, which is its last argument. */
  fetch(dir: string): Promise<ExecResult>
  /** In that directory; it has to run on this machine. */
  readonly executable: string
}

const recipes = {
  cnitool: { fetch: (dir) => fetched('build-cnitool.sh', [dir]), executable: 'cnitool' },
  'containerd-trixie': {
    fetch: (dir) => fetched('fetch-deb.sh', ['trixie', dir, 'containerd']),
    executable: 'usr/bin/containerd',
  },
  /** With plugins that speak CNI 1.1.0, in usr/lib/cni. */
  'containerd-sid': {
    fetch: (dir) => fetched('fetch-deb.sh', ['sid', dir, 'containerd', 'containernetworking-plugins']),
    executable: 'usr/bin/containerd',
  },
  podman: {
    fetch: (dir) => fetched('fetch-deb.sh', ['bookworm', dir, ...podmanPackages]),
    executable: 'usr/bin/podman',
  },
} as const satisfies Record<string, Recipe>

export type RuntimeName = keyof typeof recipes

/** The directory, or why there is none: a suite may be out of reach, or too new for this machine's libc. */
export async function fetchRuntime(name: RuntimeName): Promise<{ dir: string } | { reason: string }> {
  const dir = `${cacheDir}/${name}`
  const { fetch, executable }: Recipe = recipes[name]
  try {
    if (!existsSync(dir)) await fetchInto(dir, fetch)
    const env = { LD_LIBRARY_PATH: libraryPath(dir) }
    const { code, stderr } = await tryRun(`${dir}/${executable}`, ['--version'], { env })
    // cnitool knows no such option.
    return code === 0 || name === 'cnitool' ? { dir } : { reason: lastLine(stderr) }
  } catch (err) {
    return { reason: lastLine(String(err)) }
  }
}

/** LD_LIBRARY_PATH for what is unpacked there. */
export function libraryPath(dir: string): string {
  const libraries = `${dir}/usr/lib`
  const names = existsSync(libraries) ? readdirSync(libraries) : []
  return names
    .filter((name) => name.endsWith('-linux-gnu'))
    .map((name) => `${libraries}/${name}`)
    .join(':')
}

function fetched(name: string, args: readonly string[]): Promise<ExecResult> {
  return tryRun('nice', [script(name), ...args], { timeoutMs: 900_000 })
}

/** Under another name until it is complete. */
async function fetchInto(dir: string, fetch: Recipe['fetch']): Promise<void> {
  process.stderr.write(`fetching ${dir}\n`)
  mkdirSync(cacheDir, { recursive: true })
  const partial = mkdtempSync(`${dir}-`)
  try {
    const { code, stderr } = await fetch(partial)
    if (code !== 0) throw new Error(stderr)
    renameSync(partial, dir)
  } finally {
    rmSync(partial, { recursive: true, force: true })
  }
}

function lastLine(text: string): string {
  return text.trim().split('\n').at(-1) ?? ''
}
