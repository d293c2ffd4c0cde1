// SPDX-License-Identifier: Apache-2.0
/**
 * The CNI plugin: a bundle that runs by being loaded. VERSION does not load the native layer, and a run with nothing
 * to log does not load winston.
 */
import { writeSync } from 'node:fs'
import type { CniError } from './cni/errors.ts'
import { type Handlers, runCni } from './cni/run.ts'
import { readStdin } from './cni/stdin.ts'
import type { NetConf } from './cni/types.ts'
import { createLogger, type Entry, type Logger, type Sink, winstonSink } from './log.ts'

type LogConfig = Pick<NetConf, 'logLevel' | 'logFile'>

/** Until the network configuration is understood: the defaults of its schema. */
const defaultLogConfig: LogConfig = { logLevel: 'warn', logFile: '/var/log/ambridge/cni.log' }

async function runPlugin(): Promise<void> {
  let log = openLog(defaultLogConfig)
  const handlers = lazyHandlers((config) => {
    log = openLog(config)
    return log
  })
  const exitCode = await runCni(handlers, {
    env: process.env,
    stdin: readStdin,
    stdout: (text) => writeAll(1, text),
    logError: (error) => log.error('command failed', failure(error)),
  })
  await log.flush()
  // All is written, and the runtime waits: not for the engine to take itself apart.
  process.exit(exitCode)
}

/** The handlers, made once the network configuration says how to log. */
function lazyHandlers(openLog: (config: NetConf) => Logger): Handlers {
  const load = async ({ config }: { config: NetConf }) => {
    const { createHandlers } = await import('./cni/handlers.ts')
    return createHandlers({ log: openLog(config) })
  }
  return {
    add: async (request) => (await load(request)).add(request),
    del: async (request) => (await load(request)).del(request),
    check: async (request) => (await load(request)).check(request),
    gc: async (request) => (await load(request)).gc(request),
    status: async (request) => (await load(request)).status(request),
  }
}

function openLog({ logLevel, logFile }: LogConfig): Logger {
  return createLogger(
    logLevel,
    deferredSink(() => winstonSink({ file: logFile })),
  )
}

/** Keeps the entries until `flush`: loading winston takes longer than an ADD, and the runtime waits for the result. */
function deferredSink(open: () => Sink): Sink {
  const entries: Entry[] = []
  return {
    write: (entry) => void entries.push(entry),
    flush: async () => {
      if (entries.length === 0) return
      const sink = open()
      for (const entry of entries.splice(0)) sink.write(entry)
      await sink.flush()
    },
  }
}

function failure({ code, message, details, cause }: CniError) {
  const { CNI_COMMAND: command, CNI_CONTAINERID: containerId, CNI_NETNS: netns } = process.env
  return { command, containerId, netns, code, error: message, details, cause }
}

/** The runtime may hand over a non-blocking pipe that is full: then it waits. */
function writeAll(fd: number, text: string): void {
  let rest: Uint8Array = Buffer.from(text)
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(fd, rest))
    } catch (err) {
      if ((err as NodeJS.ErrnoException).code !== 'EAGAIN') throw err
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2)
    }
  }
}

void runPlugin()
