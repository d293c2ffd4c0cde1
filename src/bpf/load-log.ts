// SPDX-License-Identifier: Apache-2.0
import { koffi, openLibrary, type Pointer, SystemError } from '../native.ts'
import { ffi } from './libbpf.ts'

/** A BPF object that libbpf or the kernel refused. `log`: their last lines, empty when the log was not captured. */
export class LoadError extends Error {
  override readonly name = 'LoadError'
  /** Errno name. */
  readonly code: string
  readonly log: string

  constructor(cause: SystemError, log: string) {
    super(cause.message, { cause })
    this.code = cause.code
    this.log = log
  }
}

/** Run one step of libbpf; a SystemError becomes a LoadError. Nothing reaches stderr in either case. */
export function logged<T>(captureLog: boolean | undefined, step: () => T): T {
  let log = ''
  try {
    if (captureLog !== true) return step()
    return withLibbpfLog((text) => {
      log += text
    }, step)
  } catch (err) {
    throw err instanceof SystemError ? new LoadError(err, lastLines(log)) : err
  }
}

/** A verifier log is one message, and a va_list can be read only once: so the space for it is there beforehand. */
const messageBytes = 1 << 20
/** enum libbpf_print_level: LIBBPF_WARN 0, LIBBPF_INFO 1, LIBBPF_DEBUG 2. */
const LIBBPF_DEBUG = 2

const { declare } = openLibrary('libc.so.6')
/** Writes at most `size` bytes, NUL included; returns the length of the whole text. */
const vsnprintf = declare<(out: Buffer, size: number, format: Pointer, args: Pointer) => number>(
  'int vsnprintf(void *out, size_t size, void *format, void *args)',
)

/** Run `fn`, and hand on what libbpf says meanwhile, the verifier's log too. */
function withLibbpfLog<T>(onText: (text: string) => void, fn: () => T): T {
  const buffer = Buffer.allocUnsafeSlow(messageBytes)
  const print = koffi().register((level: number, format: Pointer, args: Pointer) => {
    if (level >= LIBBPF_DEBUG) return 0
    const length = vsnprintf(buffer, buffer.length, format, args)
    onText(buffer.toString('utf8', 0, Math.min(length, buffer.length - 1)))
    return 0
  }, printType())
  const before = ffi.libbpf_set_print(print)
  try {
    return fn()
  } finally {
    ffi.libbpf_set_print(before)
    koffi().unregister(print)
  }
}

/** libbpf_print_fn_t. A va_list parameter is a pointer on x86_64 and arm64 both. */
function printType() {
  return koffi().pointer(koffi().proto(null, 'int', ['int', 'void *', 'void *']))
}

const keptLines = 40

/** libbpf's own verdict follows the verifier's. */
function lastLines(text: string): string {
  const lines = text.split('\n').filter((line) => line.trim() !== '')
  return lines.slice(-keptLines).join('\n')
}
