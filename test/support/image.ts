// SPDX-License-Identifier: Apache-2.0
import { existsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { fileURLToPath } from 'node:url'
import { own } from './cleanup.ts'
import { run } from './exec.ts'

export const image = 'example.test/busybox:1'

/** The project's own network test tool, when it is built. */
const sock = fileURLToPath(new URL('../../build/tools/sock', import.meta.url))

const archives = new Map<string, Promise<string>>()

/**
 * Archive of the pods' image: busybox and, at the given paths, statically linked executables of the machine. Each set is made once per
 * process and removed when it ends.
 */
export function imageArchive(extraFiles: Readonly<Record<string, string>> = {}): Promise<string> {
  const files = { ...(existsSync(sock) ? { '/bin/sock': sock } : {}), ...extraFiles }
  const extras = Object.entries(files).map(([inImage, onHost]) => `${onHost}=${inImage}`)
  const key = extras.join('\n')
  let archive = archives.get(key)
  if (!archive) {
    archive = make(extras, `${tmpdir()}/ambt${process.pid}-image${archives.size}.tar`)
    archives.set(key, archive)
  }
  return archive
}

async function make(extras: readonly string[], path: string): Promise<string> {
  own({ kind: 'dir', path })
  await run(fileURLToPath(new URL('./runtime/mkimage.sh', import.meta.url)), [path, image, ...extras])
  return path
}
