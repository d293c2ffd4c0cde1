// SPDX-License-Identifier: Apache-2.0
/**
 * Nothing stays behind: what a test owns is removed when it is released, on SIGINT and SIGTERM, and, should this process be killed
 * (vitest gives its workers half a second), by a watchdog process that notices the closed pipe.
 */
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import type { Writable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { type Resource, removeResource } from './runtime/resource.ts'

export type { Resource } from './runtime/resource.ts'

type Cleanup = () => Promise<void> | void

const cleanups = new Set<Cleanup>()
let watchdog: ChildProcessByStdio<Writable, null, null> | undefined
let isListening = false

/** Run `cleanup` once: by the returned function, or in reverse order of registration when a signal ends this process. */
export function registerCleanup(cleanup: Cleanup): () => Promise<void> {
  listenToSignals()
  let done: Promise<void> | undefined
  const once = (): Promise<void> => {
    done ??= (async () => {
      try {
        await cleanup()
      } finally {
        cleanups.delete(once)
      }
    })()
    return done
  }
  cleanups.add(once)
  return once
}

/** Own something that outlives processes; call it before making the thing. The returned function removes it. */
export function own(resource: Resource): () => Promise<void> {
  tellWatchdog('+', resource)
  return registerCleanup(async () => {
    await removeResource(resource)
    tellWatchdog('-', resource)
  })
}

export async function runCleanups(): Promise<void> {
  for (const cleanup of [...cleanups].reverse()) {
    try {
      await cleanup()
    } catch (err) {
      process.stderr.write(`cleanup: ${String(err)}\n`)
    }
  }
}

function listenToSignals(): void {
  if (isListening) return
  isListening = true
  let isEnding = false
  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    // Not `once`: execa's own listener ends the process when it finds no other.
    process.on(signal, () => {
      if (!isEnding) void runCleanups().finally(() => process.exit(code))
      isEnding = true
    })
  }
}

function tellWatchdog(sign: '+' | '-', resource: Resource): void {
  watchdog ??= startWatchdog()
  watchdog.stdin.write(`${sign}${JSON.stringify(resource)}\n`)
}

/** Not through execa: the child must outlive this process and must not keep it alive. */
function startWatchdog(): ChildProcessByStdio<Writable, null, null> {
  const script = fileURLToPath(new URL('./runtime/watchdog.ts', import.meta.url))
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', script], {
    stdio: ['pipe', 'ignore', 'inherit'],
    detached: true,
  })
  child.unref()
  const { stdin } = child as { stdin: Writable & { unref?: () => void } }
  stdin.unref?.()
  stdin.on('error', () => {})
  return child
}
