// SPDX-License-Identifier: Apache-2.0
import { closeSync, constants, mkdirSync, openSync, writeSync } from 'node:fs'
import { inspect } from 'node:util'

export type Level = 'error' | 'warn' | 'info' | 'debug'
export type Fields = Readonly<Record<string, unknown>>

/** One line of the log. */
export interface Entry {
  readonly level: Level
  readonly message: string
  readonly time: string
  readonly [field: string]: unknown
}

export interface Sink {
  write(entry: Entry): void
  /** Resolves when everything written so far is out. Never rejects. */
  flush(): Promise<void>
}

/** Messages are constant strings, so that they can be searched for; values are fields. */
export interface Logger {
  error(message: string, fields?: Fields): void
  warn(message: string, fields?: Fields): void
  info(message: string, fields?: Fields): void
  debug(message: string, fields?: Fields): void
  /** Whether a message of that level is written. */
  enabled(level: Level): boolean
  with(fields: Fields): Logger
  flush(): Promise<void>
}

const severity: Readonly<Record<Level, number>> = { error: 0, warn: 1, info: 2, debug: 3 }

export function createLogger(level: Level, sink: Sink, base: Fields = {}): Logger {
  const enabled = (asked: Level) => severity[asked] <= severity[level]
  const at =
    (asked: Level) =>
    (message: string, fields: Fields = {}) => {
      if (!enabled(asked)) return
      const values = Object.entries({ ...base, ...fields }).map(([key, value]) => [key, plain(value)])
      sink.write({ ...Object.fromEntries(values), level: asked, message, time: new Date().toISOString() })
    }
  return {
    error: at('error'),
    warn: at('warn'),
    info: at('info'),
    debug: at('debug'),
    enabled,
    with: (fields) => createLogger(level, sink, { ...base, ...fields }),
    flush: () => sink.flush(),
  }
}

/** An Error has no enumerable fields, and JSON has no bigint. Causes may run in a circle: eight are told. */
function plain(value: unknown, depth = 0): unknown {
  if (typeof value === 'bigint') return value.toString()
  if (!(value instanceof Error)) return value
  const { message, cause } = value
  if (cause === undefined || depth === 8) return message
  const reason = plain(cause, depth + 1)
  return `${message}: ${typeof reason === 'string' ? reason : inspect(reason)}`
}

export interface LogTargets {
  /** Appended to; its folder is made. */
  readonly file?: string
  /** Takes one line; stderr unless told otherwise. */
  readonly stderr?: (line: string) => void
}

interface Backend {
  log(entry: Entry): void
  close(): Promise<void>
}

/**
 * JSON lines through winston, to stderr and to a file. The first entry loads it: a run that logs nothing
 * never pays for it. Nothing that goes wrong here reaches the one who logs.
 */
export function winstonSink({ file, stderr = writeStderr }: LogTargets): Sink {
  const print = quiet(stderr)
  const targets = file === undefined ? [print] : [print, appendTo(file, print)]
  let backend: Promise<Backend> | undefined
  let written: Promise<unknown> = Promise.resolve()
  return {
    write: (entry) => {
      backend ??= openBackend(targets)
      const opened = backend
      written = written
        .then(async () => (await opened).log(entry))
        .catch((err) => print(fault('cannot log', err)))
    },
    flush: async () => {
      const [opened, pending] = [backend, written]
      backend = undefined
      await pending
      await opened?.then((open) => open.close()).catch(() => undefined)
    },
  }
}

/** A closed stderr is no reason to fail. */
function quiet(write: (line: string) => void): (line: string) => void {
  return (line) => {
    try {
      write(line)
    } catch {
      // There is nowhere left to report it.
    }
  }
}

async function openBackend(targets: readonly ((line: string) => void)[]): Promise<Backend> {
  const [{ Writable, finished }, { createLogger: create, format, transports }] = await Promise.all([
    import('node:stream'),
    import('winston'),
  ])
  const opened = targets.map((target) => {
    const write = (chunk: Buffer, _encoding: string, done: () => void) => {
      target(chunk.toString())
      done()
    }
    return new transports.Stream({ stream: new Writable({ write }), eol: '\n' })
  })
  const winston = create({ level: 'debug', levels: severity, format: format.json(), transports: opened })
  return {
    log: (entry) => void winston.log(entry),
    close: async () => {
      const ends = opened.map((transport) => new Promise<void>((done) => finished(transport, () => done())))
      winston.end()
      await Promise.all(ends)
    },
  }
}

/** Line by line with O_APPEND: plugins that run at once share the file. Tells the first failure only. */
function appendTo(file: string, print: (line: string) => void): (line: string) => void {
  let failed = false
  return (line) => {
    try {
      append(file, line)
      failed = false
    } catch (err) {
      if (!failed) print(fault('cannot write the log file', err, file))
      failed = true
    }
  }
}

function append(file: string, line: string): void {
  const { O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_WRONLY } = constants
  mkdirSync(file.slice(0, file.lastIndexOf('/')) || '/', { recursive: true, mode: 0o750 })
  // O_NONBLOCK: a FIFO in the file's place must not hold up a pod.
  const fd = openSync(file, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o640)
  try {
    writeSync(fd, line)
  } finally {
    closeSync(fd)
  }
}

function fault(message: string, err: unknown, file?: string): string {
  const error = plain(err instanceof Error ? err : String(err))
  return `${JSON.stringify({ level: 'warn', message, file, error })}\n`
}

function writeStderr(line: string): void {
  writeSync(2, line)
}
