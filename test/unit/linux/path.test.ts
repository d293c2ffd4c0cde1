// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { isThere, removeFile } from '../../../src/linux/path.ts'

let dir: string

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'ambt-path'))
  writeFileSync(join(dir, 'file'), '')
  symlinkSync('loop', join(dir, 'loop'))
})
afterEach(() => rmSync(dir, { recursive: true }))

const absent = ['nothing', 'file/below', 'loop', 'x'.repeat(300), 'a\0b']

test('isThere() sees files and directories', () => {
  expect([isThere(dir), isThere(join(dir, 'file'))]).toEqual([true, true])
})

test.for(absent)('isThere() is false where nothing can be: %j', (name) => {
  expect(isThere(join(dir, name))).toBe(false)
})

test('removeFile() removes a file', () => {
  removeFile(join(dir, 'file'))
  expect(readdirSync(dir)).toEqual(['loop'])
})

test.for(absent)('removeFile() succeeds where nothing can be: %j', (name) => {
  removeFile(join(dir, name))
})

test('removeFile() throws where it cannot remove', () => {
  mkdirSync(join(dir, 'directory'))
  expect(() => removeFile(join(dir, 'directory'))).toThrow(/^(EISDIR|EPERM): /)
})
