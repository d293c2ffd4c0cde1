// SPDX-License-Identifier: Apache-2.0
import { readdirSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { entryOf, problemOf } from '../../../installer/conflist.ts'
import { defaultEntry } from '../../../installer/install.ts'

const templates = new URL('../../../conf/conflists/', import.meta.url)

test('there is a template for each of the four primary CNIs', () => {
  expect(readdirSync(templates).sort()).toEqual(
    ['bridge', 'calico', 'macvlan', 'ptp'].map((n) => `${n}.conflist`),
  )
})

test.for(readdirSync(templates))('template %s is a valid conflist with the default entry last', (name) => {
  const text = readFileSync(new URL(name, templates), 'utf8')
  expect(problemOf(text, 'list')).toBeUndefined()
  expect(entryOf(text)).toBe(defaultEntry)
  const { plugins } = JSON.parse(text)
  expect(plugins[0].type).toBe(name.replace('.conflist', ''))
  expect(plugins.at(-1).type).toBe('ambridge')
})
