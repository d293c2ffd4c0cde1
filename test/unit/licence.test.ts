// SPDX-License-Identifier: Apache-2.0
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { execa } from 'execa'
import { expect, test } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
const list = await execa('git', ['ls-files', '-co', '--exclude-standard', '-z'], {
  cwd: root,
  timeout: 10_000,
})

/** Formats without comments, prose, data, licences, and what a tool keeps in a dot file. */
const exempt =
  /\.(json|conflist|md|txt|golden|patch|png|svg|ico|pcap|o)$|(^|\/)(testdata\/|LICEN[CS]E|\.[^/]+$)/
const files = list.stdout
  .split('\0')
  .filter((file) => file !== '' && !exempt.test(file) && existsSync(join(root, file)))

function licenceOf(file: string): string | undefined {
  const [first = '', second = ''] = readFileSync(join(root, file), 'utf8').split('\n', 2)
  const line = first.startsWith('#!') ? second : first
  return /SPDX-License-Identifier: (.*?)(?:\s*(?:\*\/.*|-->))?$/.exec(line)?.[1]
}

test('this test sees the files', () => {
  expect(files).toEqual(expect.arrayContaining(['bpf/layout.h', 'src/log.ts', 'conf/gen-validators.ts']))
  expect(files).not.toContain('package.json')
})

test.for(files)('%s says its licence in its first line', (file) => {
  const expected = file.startsWith('bpf/') ? '(GPL-2.0-only OR BSD-2-Clause)' : 'Apache-2.0'
  expect(licenceOf(file)).toBe(expected)
})
