// SPDX-License-Identifier: Apache-2.0
import { chmodSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { planUninstall } from '../../../installer/uninstall.ts'
import { Host, testdata } from './host.ts'

function installed(name: string, text: string): Host {
  const host = new Host()
  host.putConf(name, text)
  host.install()
  return host
}

test('takes out the entry, then the executable, then the native files of every version', () => {
  const host = installed('10-flannel.conflist', testdata('flannel.conflist'))
  host.install({ version: '1.2.4' })
  expect(host.uninstall()).toEqual([
    'update net.d/10-flannel.conflist',
    'remove bin/ambridge',
    'remove bin/.ambridge-1.2.3',
    'remove bin/.ambridge-1.2.4',
  ])
})

test.for(['flannel', 'compact'])('the %s list is after install and uninstall what it was', (name) => {
  const before = testdata(`${name}.conflist`)
  const host = new Host()
  host.putConf('10.conflist', before)
  chmodSync(join(host.confDir, '10.conflist'), 0o640)
  writeFileSync(join(host.binDir, 'ptp'), 'of somebody else')
  host.install()
  host.uninstall()
  expect(host.conf('10.conflist')).toBe(before)
  expect(host.mode('net.d/10.conflist')).toBe('640')
  expect(host.listing()).toEqual(['bin/ptp', 'net.d/10.conflist'])
})

test.for(['conf', 'json'])('a list that was made of a .%s is a .conf again', (extension) => {
  const host = installed(`10-macvlan.${extension}`, testdata('macvlan.conf'))
  host.uninstall()
  expect(host.listing()).toEqual(['net.d/10-macvlan.conf'])
  expect(host.conf('10-macvlan.conf')).toBe(testdata('macvlan.conf'))
})

test.for(['conf', 'json'])('a .%s that the primary CNI has written again is kept', (extension) => {
  const host = installed(`10-macvlan.${extension}`, testdata('macvlan.conf'))
  const newer = testdata('macvlan.conf').replace('eth0', 'eth1')
  host.putConf(`10-macvlan.${extension}`, newer)
  host.uninstall()
  expect(host.listing()).toEqual([`net.d/10-macvlan.${extension}`])
  expect(host.conf(`10-macvlan.${extension}`)).toBe(newer)
})

test('a list that was made of a .conf and changed since stays a list', () => {
  const host = installed('10-macvlan.conf', testdata('macvlan.conf'))
  const changed = host.conf('10-macvlan.conflist').replace('eth0', 'eth1').replace('"name"', '"x": 1, "name"')
  host.putConf('10-macvlan.conflist', changed)
  host.uninstall()
  expect(host.listing()).toEqual(['net.d/10-macvlan.conflist'])
  expect(JSON.parse(host.conf('10-macvlan.conflist')).plugins).toHaveLength(1)
})

test('takes the entry out of every list, whichever is the active one', () => {
  const host = installed('10-flannel.conflist', testdata('flannel.conflist'))
  host.putConf('05-compact.conflist', testdata('compact.conflist'))
  host.install()
  host.uninstall()
  expect(host.conf('05-compact.conflist')).toBe(testdata('compact.conflist'))
  expect(host.conf('10-flannel.conflist')).toBe(testdata('flannel.conflist'))
})

test('a second run, and a run without directories, find everything gone', () => {
  const host = installed('10-flannel.conflist', testdata('flannel.conflist'))
  host.uninstall()
  const gone = ['none net.d', 'none bin/ambridge', 'none bin']
  expect(host.uninstall()).toEqual(gone)
  for (const dir of [host.binDir, host.confDir]) rmSync(dir, { recursive: true })
  expect(host.uninstall()).toEqual(gone)
  mkdirSync(host.binDir)
  mkdirSync(host.confDir)
})

test('edits the file that a link in the directory points to', () => {
  const host = new Host()
  writeFileSync(join(host.dir, 'real'), testdata('flannel.golden'))
  symlinkSync('../real', join(host.confDir, '10-flannel.conflist'))
  host.uninstall()
  expect(readFileSync(join(host.dir, 'real'), 'utf8')).toBe(testdata('flannel.conflist'))
})

test('removes what an interrupted run left, and passes over links to nowhere', () => {
  const host = new Host()
  symlinkSync('nowhere', join(host.confDir, '05.conflist'))
  writeFileSync(join(host.confDir, '.10.conflist.9.ambridge-tmp'), 'half')
  writeFileSync(join(host.binDir, '.ambridge.9.ambridge-tmp'), 'half')
  host.uninstall()
  expect(host.listing()).toEqual(['net.d/05.conflist'])
})

test('planning changes nothing', () => {
  const host = installed('10-flannel.conflist', testdata('flannel.conflist'))
  const before = host.everything()
  planUninstall(host)
  expect(host.everything()).toEqual(before)
})

test('refuses while a broken list may hold the entry, and changes nothing', () => {
  const host = installed('10-flannel.conflist', testdata('flannel.conflist'))
  host.putConf('20.conflist', '{"plugins":[{"type":"ambridge"}')
  const before = host.everything()
  expect(host.failure(() => host.uninstall())).toEqual({
    message: '~/net.d/20.conflist is not JSON: line 1, column 32 (position 31)',
    remedy: 'repair it, or take the entry "ambridge" out of it',
  })
  expect(host.everything()).toEqual(before)
})

test('a broken list of somebody else is no obstacle', () => {
  const host = installed('10-flannel.conflist', testdata('flannel.conflist'))
  host.putConf('20.conflist', '{"plugins":[')
  host.uninstall()
  expect(readFileSync(join(host.confDir, '20.conflist'), 'utf8')).toBe('{"plugins":[')
  expect(host.listing()).toEqual(['net.d/10-flannel.conflist', 'net.d/20.conflist'])
})
