// SPDX-License-Identifier: Apache-2.0
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Command } from 'commander'
import { expect, onTestFinished, test } from 'vitest'
import { installCommand } from '../../../installer/commands/install.ts'
import { uninstallCommand } from '../../../installer/commands/uninstall.ts'
import { Host, testdata } from './host.ts'

/** What the command prints, with ~ for the host's directory. */
function output(host: Host, command: Command, ...args: string[]): string {
  let printed = ''
  const writeOut = (text: string) => {
    printed += text
  }
  const dirs = ['--bin-dir', host.binDir, '--conf-dir', host.confDir]
  command.configureOutput({ writeOut }).parse([...dirs, ...args], { from: 'user' })
  return printed.replaceAll(host.dir, '~')
}

function flannelHost(): Host {
  const host = new Host()
  host.putConf('10-flannel.conflist', testdata('flannel.conflist'))
  return host
}

function install(host: Host): Command {
  return installCommand(host.options())
}

test('install says what it did, and the second time that it is already there', () => {
  const host = flannelHost()
  expect(output(host, install(host))).toBe(testdata('install.golden'))
  expect(output(host, install(host))).toBe(testdata('install-again.golden'))
})

test('uninstall says what it did, and the second time that it is already gone', () => {
  const host = flannelHost()
  output(host, install(host))
  expect(output(host, uninstallCommand())).toBe(testdata('uninstall.golden'))
  expect(output(host, uninstallCommand())).toBe(testdata('uninstall-again.golden'))
})

test('--dry-run says what would be done and does not', () => {
  const host = flannelHost()
  const before = host.everything()
  expect(output(host, install(host), '--dry-run')).toBe(testdata('install-dry-run.golden'))
  expect(host.everything()).toEqual(before)
  host.install()
  const installed = host.everything()
  expect(output(host, uninstallCommand(), '--dry-run')).toMatch(/^would update .*\nwould remove /)
  expect(host.everything()).toEqual(installed)
})

test('-o json gives one document', () => {
  const host = flannelHost()
  const document = JSON.parse(output(host, install(host), '-o', 'json', '--dry-run'))
  expect(document.dryRun).toBe(true)
  expect(document.steps.at(-1)).toEqual({
    what: 'conflist',
    path: '~/net.d/10-flannel.conflist',
    change: 'update',
  })
})

test('--entry takes JSON or the name of a file', () => {
  const dir = mkdtempSync(join(tmpdir(), 'ambridge-entry-'))
  onTestFinished(() => rmSync(dir, { recursive: true }))
  writeFileSync(join(dir, 'entry.json'), '{\n  "type": "ambridge",\n  "logLevel": "debug"\n}\n')
  for (const entry of [join(dir, 'entry.json'), '{"type":"ambridge","logLevel":"debug"}']) {
    const host = flannelHost()
    output(host, install(host), '--entry', entry)
    expect(JSON.parse(host.conf('10-flannel.conflist')).plugins.at(-1)).toEqual({
      type: 'ambridge',
      logLevel: 'debug',
    })
  }
})

test('--entry of a file that is missing is refused', () => {
  const host = flannelHost()
  expect(host.failure(() => output(host, install(host), '--entry', '/nowhere'))).toEqual({
    message: 'cannot read /nowhere: ENOENT',
    remedy: 'pass a file or a JSON object: --entry FILE|JSON',
  })
})

test('outside the single executable --executable has to name one', () => {
  const host = flannelHost()
  expect(host.failure(() => output(host, installCommand()))).toEqual({
    message: 'this is not the single executable',
    remedy: 'name the built one: --executable PATH',
  })
  output(host, installCommand(), '--executable', host.executable)
  expect(host.listing()).toEqual(['bin/ambridge', 'net.d/10-flannel.conflist'])
})
