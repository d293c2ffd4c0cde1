// SPDX-License-Identifier: Apache-2.0
/** Native files: where they are, and how C functions are called and fail. Types alone come from the koffi package. */
import * as fs from 'node:fs'
import * as path from 'node:path'
import { getRawAsset, isSea } from 'node:sea'
import type * as Koffi from 'koffi'

declare const __VERSION__: string
/** The bundler defines it. */
const version = typeof __VERSION__ === 'string' ? __VERSION__ : 'development'

const executableDir = path.dirname(process.execPath)
const O_TMPFILE = 0o20000000 | fs.constants.O_DIRECTORY
const RTLD_NOW = 2

/** errno.h; these are the same on every architecture. */
export const ENOENT = 2
export const EEXIST = 17
export const EINVAL = 22

/** A failed call into the kernel or a C library. `code` is the errno name, so callers write `err.code === 'ENOENT'`. */
export class SystemError extends Error {
  override readonly name = 'SystemError'
  readonly code: string
  /** Positive, as in errno.h. */
  readonly errno: number

  constructor(action: string, errno: number, options?: ErrorOptions) {
    const code = errnoName(errno)
    super(`${action}: ${code}`, options)
    this.code = code
    this.errno = errno
  }
}

/** For calls that return a negative errno on failure, as libbpf does. */
export function check(action: string, ret: number): number {
  if (ret < 0) throw new SystemError(action, -ret)
  return ret
}

/** For calls that return -1 and set errno, as libc does. Nothing else may run between the call and this. */
export function checkErrno(action: string, ret: number): number {
  if (ret < 0) throw new SystemError(action, koffi().errno())
  return ret
}

/** For calls that return NULL and set errno. Nothing else may run between the call and this. */
export function checkPointer(action: string, pointer: Pointer | null): Pointer {
  if (pointer === null) throw new SystemError(action, koffi().errno())
  return pointer
}

/** Errors that libbpf numbers by itself, from 4000 on (bpf/libbpf.h), and one that the kernel does not translate. */
const libbpfErrnoBase = 4000
const libbpfErrnos =
  'LIBELF FORMAT KVERSION ENDIAN INTERNAL RELOC LOAD VERIFY PROG2BIG KVER PROGTYPE WRNGPID INVSEQ NLPARSE'.split(
    ' ',
  )
const ENOTSUPP = 524

function errnoName(errno: number): string {
  const table = koffi().os.errno
  const known = Object.keys(table).find((name) => table[name] === errno)
  if (known !== undefined) return known
  const libbpf = libbpfErrnos[errno - libbpfErrnoBase]
  if (libbpf !== undefined) return `LIBBPF_ERRNO__${libbpf}`
  return errno === ENOTSUPP ? 'ENOTSUPP' : `errno ${errno}`
}

/** An address in C's memory. */
export type Pointer = bigint

export interface Library {
  /** One C function, by its prototype. It is declared at its first call: a whole table at once would cost start-up time. */
  declare<F extends (...args: never[]) => unknown>(prototype: string, defineTypes?: () => void): F
  /** The same, run by one of libuv's few threads, which is taken until it returns. The errno of a failure is lost. */
  declareAsync<F extends (...args: never[]) => unknown>(
    prototype: string,
  ): (...args: Parameters<F>) => Promise<ReturnType<F>>
}

/** A shared library, opened at the first call of one of its functions; `prepare` runs before that call. */
export function openLibrary(name: string, prepare?: (library: Koffi.LibraryHandle) => void): Library {
  let handle: Koffi.LibraryHandle | undefined
  const open = () => {
    handle = loadLibrary(name)
    prepare?.(handle)
    return handle
  }
  return {
    declare: (prototype, defineTypes) => {
      let call: ((...args: never[]) => unknown) | undefined
      const declareNow = () => {
        defineTypes?.()
        call = (handle ?? open()).func(prototype)
        return call
      }
      return ((...args: never[]) => (call ?? declareNow())(...args)) as never
    },
    declareAsync: (prototype) => {
      let call: ReturnType<Koffi.LibraryHandle['func']> | undefined
      return (...args) => {
        call ??= (handle ?? open()).func(prototype)
        const start = call.async
        return new Promise((resolve, reject) => {
          start(...args, (err: unknown, ret: never) => (err ? reject(err) : resolve(ret)))
        })
      }
    },
  }
}

function loadLibrary(name: string): Koffi.LibraryHandle {
  // libc is the process's own.
  if (name.startsWith('libc.')) return koffi().load(name)
  return loadNative(name, (file) => koffi().load(file))
}

let addon: typeof Koffi | undefined

/** koffi's compiled half alone: its JavaScript costs ten times as much to load and adds nothing. */
export function koffi(): typeof Koffi {
  addon ??= loadNative('koffi.node', openAddon)
  return addon
}

function openAddon(file: string): typeof Koffi {
  const module = { exports: {} }
  process.dlopen(module as NodeJS.Module, file, RTLD_NOW)
  return module.exports as typeof Koffi
}

/** The bytes of a native file that is not mapped, a BPF object for instance. */
export function nativeBytes(name: string): Buffer {
  const file = findFile(name)
  return file === undefined ? embeddedBytes(name) : fs.readFileSync(file)
}

/** Map a native file by its path; an embedded one through a file without a name: no race, nothing stale. */
function loadNative<T>(name: string, load: (file: string) => T): T {
  const file = findFile(name)
  if (file !== undefined) return load(file)
  const bytes = embeddedBytes(name)
  const causes: unknown[] = []
  for (const dir of ['/dev/shm', executableDir]) {
    try {
      return loadUnnamed(dir, bytes, load)
    } catch (cause) {
      causes.push(cause) // mounted noexec or read-only, or without O_TMPFILE
    }
  }
  const remedy = `install ${name} in ${placedDir()}, owned by root and writable by root only`
  throw new AggregateError(causes, `cannot map ${name} from /dev/shm or ${executableDir}: ${remedy}`)
}

/** The descriptor stays open: the loader knows a library by its name, which is the descriptor's number. */
function loadUnnamed<T>(dir: string, bytes: Buffer, load: (file: string) => T): T {
  const fd = fs.openSync(dir, O_TMPFILE | fs.constants.O_RDWR, 0o500)
  try {
    fs.writeFileSync(fd, bytes)
    return load(`/proc/self/fd/${fd}`)
  } catch (err) {
    fs.closeSync(fd)
    throw err
  }
}

function embeddedBytes(name: string): Buffer {
  if (!isSea()) {
    throw new Error(`${name} is in none of ${developmentDirs().join(', ')}: run "npm run build" first`)
  }
  return Buffer.from(getRawAsset(name))
}

function findFile(name: string): string | undefined {
  const dirs = isSea() ? [placedDir()].filter(isTrusted) : developmentDirs()
  return dirs.map((dir) => path.join(dir, name)).find((file) => fs.existsSync(file))
}

/** Where the installer puts native files. The version is in its name, so that a running older plugin keeps its own. */
function placedDir(): string {
  return path.join(executableDir, `.ambridge-${version}`)
}

/** A directory that only root can change; a link is refused. */
function isTrusted(dir: string): boolean {
  const st = fs.lstatSync(dir, { throwIfNoEntry: false })
  return st?.isDirectory() === true && st.uid === 0 && (st.mode & 0o022) === 0
}

function developmentDirs(): string[] {
  const repository = path.join(import.meta.dirname, '..')
  const { arch, env } = process
  return [
    ...(env['AMBRIDGE_NATIVE_DIR'] ? [env['AMBRIDGE_NATIVE_DIR']] : []),
    path.join(repository, 'build'),
    path.join(repository, `node_modules/@koromix/koffi-linux-${arch}/linux_${arch}`),
  ]
}
