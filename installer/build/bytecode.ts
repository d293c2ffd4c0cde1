// SPDX-License-Identifier: Apache-2.0
/**
 * `node bytecode.ts BUNDLE.cjs...` writes BUNDLE.bytecode beside each: what src/bundle.ts hands to the engine. To be run by
 * the Node that will read it: bytecode is of one build of V8 alone.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { Module } from 'node:module'
import { setFlagsFromString } from 'node:v8'
import { Script } from 'node:vm'

function bytecodeOf(file: string): Buffer {
  const source = Module.wrap(readFileSync(file, 'latin1'))
  // Every function, not only those that run at once. V8 compares the flags later, so they are set back.
  setFlagsFromString('--no-lazy')
  const script = new Script(source, { filename: file })
  setFlagsFromString('--lazy')
  const cachedData = script.createCachedData()
  if (new Script(source, { filename: file, cachedData }).cachedDataRejected !== false) {
    throw new Error(
      `V8 does not take its own bytecode of ${file}: look for changed flags (process.execArgv, NODE_OPTIONS)`,
    )
  }
  return cachedData
}

for (const file of process.argv.slice(2)) writeFileSync(file.replace(/\.cjs$/, '.bytecode'), bytecodeOf(file))
