// SPDX-License-Identifier: Apache-2.0
/**
 * The bundles that the one executable carries as assets. Each comes with the bytecode of all its functions: to compile
 * them at run time would cost an ADD a sixth of its time.
 */
import { readFileSync } from 'node:fs'
import { Module } from 'node:module'
import { dirname, join } from 'node:path'
import { getRawAsset, isSea } from 'node:sea'
import { Script } from 'node:vm'

type Wrapper = (
  exports: unknown,
  require: (id: string) => unknown,
  module: { exports: unknown },
  file: string,
  dir: string,
) => void

/** Runs the bundle, and gives what it exports. */
export function runBundle(name: string): unknown {
  const file = join(import.meta.dirname, '../build', `${name}.cjs`)
  const script = new Script(Module.wrap(sourceOf(file)), { filename: file, ...bytecodeOf(name) })
  const wrapper: Wrapper = script.runInThisContext()
  const module = { exports: {} }
  wrapper(module.exports, requireInside, module, file, dirname(file))
  return module.exports
}

/** A package on the file system is never looked for: this may run as root, in a directory of anybody. */
function requireInside(id: string): unknown {
  return process.getBuiltinModule(id) ?? runBundle(id)
}

/** The bundler writes nothing but ASCII, which is the fastest to read. */
function sourceOf(file: string): string {
  if (!isSea()) return readFileSync(file, 'latin1')
  return Buffer.from(getRawAsset(file.slice(file.lastIndexOf('/') + 1))).toString('latin1')
}

/** In development there is none, and the engine compiles as it goes. */
function bytecodeOf(name: string): { readonly cachedData?: Buffer } {
  return isSea() ? { cachedData: Buffer.from(getRawAsset(`${name}.bytecode`)) } : {}
}
