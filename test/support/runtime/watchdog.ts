// SPDX-License-Identifier: Apache-2.0
/**
 * Reads lines `+RESOURCE` and `-RESOURCE` (JSON) from the process that started it. When that process is gone, whichever way, it
 * removes what is still listed, the youngest first.
 */
import { createInterface } from 'node:readline'
import { type Resource, removeResource } from './resource.ts'

const owned = new Set<string>()
for await (const line of createInterface({ input: process.stdin })) {
  if (line.startsWith('+')) owned.add(line.slice(1))
  else owned.delete(line.slice(1))
}
for (const text of [...owned].reverse()) {
  try {
    await removeResource(JSON.parse(text) as Resource)
  } catch (err) {
    process.stderr.write(`watchdog: ${text}: ${String(err)}\n`)
  }
}
