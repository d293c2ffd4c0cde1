// SPDX-License-Identifier: Apache-2.0
import { chmodSync, mkdirSync, readFileSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { execa } from 'execa'
import { expect, test } from 'vitest'
import { applySteps } from '../../../installer/files.ts'
import { chainableVersions, defaultEntry, planInstall } from '../../../installer/install.ts'
import { supportedVersions } from '../../../src/cni/version.ts'
import { Host, testdata } from './host.ts'

/** A host on which flannel is the primary CNI. */
function flannelHost(): Host {
  const host = new Host()
  host.putConf('10-flannel.conflist', testdata('flannel.conflist'))
  return host
}

test('installs native files, then the executable, then the conflist entry', () => {
  const host = flannelHost()
  expect(host.install()).toEqual([
    'create bin/.ambridge-1.2.3',
    'create bin/.ambridge-1.2.3/koffi.node',
    'create bin/.ambridge-1.2.3/libbpf.so',
    'create bin/ambridge',
    'update net.d/10-flannel.conflist',
  ])
  expect(host.conf('10-flannel.conflist')).toBe(testdata('flannel.golden'))
  expect(readFileSync(join(host.binDir, 'ambridge'), 'utf8')).toBe('the executable')
  expect(readFileSync(join(host.binDir, '.ambridge-1.2.3/libbpf.so'), 'utf8')).toBe('libbpf.so')
  expect([host.mode('bin/ambridge'), host.mode('bin/.ambridge-1.2.3')]).toEqual(['755', '755'])
  expect(host.mode('bin/.ambridge-1.2.3/koffi.node')).toBe('555')
})

test('a second run finds everything in place and writes nothing', () => {
  const host = flannelHost()
  host.install()
  const past = new Date(1e12)
  for (const path of ['bin', 'bin/ambridge', 'net.d', 'net.d/10-flannel.conflist']) {
    utimesSync(join(host.dir, path), past, past)
  }
  expect(host.install().every((line) => line.startsWith('none '))).toBe(true)
  expect(flatTimes(host)).toEqual([1e12, 1e12, 1e12, 1e12])
})

function flatTimes(host: Host): number[] {
  return ['bin', 'bin/ambridge', 'net.d', 'net.d/10-flannel.conflist'].map((path) => host.mtimeMs(path))
}

test('planning changes nothing', () => {
  const host = flannelHost()
  planInstall(host.options())
  expect(host.listing()).toEqual(['net.d/10-flannel.conflist'])
  expect(host.conf('10-flannel.conflist')).toBe(testdata('flannel.conflist'))
})

test('repairs a file whose content or mode was changed', () => {
  const host = flannelHost()
  host.install()
  chmodSync(join(host.binDir, '.ambridge-1.2.3/koffi.node'), 0o777)
  chmodSync(join(host.binDir, '.ambridge-1.2.3'), 0o777)
  writeFileSync(join(host.binDir, 'ambridge'), 'tHe executable')
  expect(host.install().filter((line) => !line.startsWith('none '))).toEqual([
    'update bin/.ambridge-1.2.3',
    'update bin/.ambridge-1.2.3/koffi.node',
    'update bin/ambridge',
  ])
  expect(host.mode('bin/.ambridge-1.2.3/koffi.node')).toBe('555')
  expect(readFileSync(join(host.binDir, 'ambridge'), 'utf8')).toBe('the executable')
})

test('a new version leaves the native files of the old one to the plugins that run', () => {
  const host = flannelHost()
  host.install()
  host.install({ version: '1.2.4' })
  expect(host.listing().filter((path) => path.endsWith('.node'))).toEqual([
    'bin/.ambridge-1.2.3/koffi.node',
    'bin/.ambridge-1.2.4/koffi.node',
  ])
})

test('removes what an interrupted run left, and nothing else', () => {
  const host = flannelHost()
  host.install()
  const leftovers = ['bin/.ambridge.17.ambridge-tmp', 'net.d/.10-flannel.conflist.17.ambridge-tmp']
  for (const path of [...leftovers, 'bin/.keep', 'bin/.ambridge-1.2.3/.libbpf.so.1.ambridge-tmp']) {
    writeFileSync(join(host.dir, path), 'half')
  }
  host.install()
  expect(host.listing()).toEqual([
    'bin/.ambridge-1.2.3',
    'bin/.ambridge-1.2.3/koffi.node',
    'bin/.ambridge-1.2.3/libbpf.so',
    'bin/.keep',
    'bin/ambridge',
    'net.d/10-flannel.conflist',
  ])
})

test('keeps the mode of the conflist', () => {
  const host = flannelHost()
  chmodSync(join(host.confDir, '10-flannel.conflist'), 0o640)
  host.install()
  expect(host.mode('net.d/10-flannel.conflist')).toBe('640')
})

test.runIf(process.geteuid?.() === 0)('keeps the owner of the conflist', () => {
  const host = flannelHost()
  host.chown('net.d/10-flannel.conflist', 65534)
  host.install()
  expect(host.uid('net.d/10-flannel.conflist')).toBe(65534)
  expect(host.uid('bin/ambridge')).toBe(0)
})

test('edits the file that a link in the directory points to', () => {
  const host = new Host()
  writeFileSync(join(host.dir, 'real'), testdata('flannel.conflist'))
  symlinkSync('../real', join(host.confDir, '10-flannel.conflist'))
  host.install()
  expect(readFileSync(join(host.dir, 'real'), 'utf8')).toBe(testdata('flannel.golden'))
  expect(host.conf('10-flannel.conflist')).toBe(testdata('flannel.golden'))
})

test('takes the first valid file by name, as runtimes do', () => {
  const host = new Host()
  host.putConf('00-broken.conflist', '{')
  host.putConf('01-list-in-json.json', testdata('flannel.conflist'))
  host.putConf('02.conflist.bak', testdata('flannel.conflist'))
  mkdirSync(join(host.confDir, '03-directory.conf'))
  host.putConf('10-flannel.conflist', testdata('flannel.conflist'))
  host.putConf('20-compact.conflist', testdata('compact.conflist'))
  host.install()
  expect(host.conf('10-flannel.conflist')).toBe(testdata('flannel.golden'))
  expect(host.conf('20-compact.conflist')).toBe(testdata('compact.conflist'))
  expect(host.conf('00-broken.conflist')).toBe('{')
})

test('takes the file that is named', () => {
  const host = flannelHost()
  host.putConf('20-compact.conflist', testdata('compact.conflist'))
  host.install({ confName: '20-compact.conflist' })
  expect(host.conf('20-compact.conflist')).toBe(testdata('compact.golden'))
  expect(host.conf('10-flannel.conflist')).toBe(testdata('flannel.conflist'))
})

test.for(['conf', 'json'])('makes a conflist of a .%s, which then goes', (extension) => {
  const host = new Host()
  host.putConf(`10-macvlan.${extension}`, testdata('macvlan.conf'))
  chmodSync(join(host.confDir, `10-macvlan.${extension}`), 0o600)
  host.install()
  expect(host.listing().filter((path) => path.startsWith('net.d'))).toEqual(['net.d/10-macvlan.conflist'])
  expect(host.conf('10-macvlan.conflist')).toBe(testdata('macvlan.golden'))
  expect(host.mode('net.d/10-macvlan.conflist')).toBe('600')
  expect(host.install({ confName: '10-macvlan.conf' }).at(-1)).toBe('none net.d/10-macvlan.conflist')
})

test('a .conf that the primary CNI writes again is taken over, with the entry that was there', () => {
  const host = new Host()
  host.putConf('10-macvlan.conf', testdata('macvlan.conf'))
  host.install({ entry: '{ "type": "ambridge", "logLevel": "debug" }' })
  const first = host.conf('10-macvlan.conflist')
  host.putConf('10-macvlan.conf', testdata('macvlan.conf').replace('eth0', 'eth1'))
  host.install()
  expect(host.conf('10-macvlan.conflist')).toBe(first.replace('eth0', 'eth1'))
  expect(host.listing()).not.toContain('net.d/10-macvlan.conf')
})

test('an interrupted run between the new conflist and the end of the .conf is completed', () => {
  const host = new Host()
  host.putConf('10-macvlan.conf', testdata('macvlan.conf'))
  host.putConf('10-macvlan.conflist', testdata('macvlan.golden'))
  expect(host.install().slice(-2)).toEqual(['none net.d/10-macvlan.conflist', 'remove net.d/10-macvlan.conf'])
})

test('an entry that is there is kept unless another is wanted', () => {
  const host = flannelHost()
  const tuned = '{ "type": "ambridge", "logLevel": "debug", "mode": "sidecar" }'
  expect(host.install({ entry: tuned }).at(-1)).toBe('update net.d/10-flannel.conflist')
  expect(host.install().at(-1)).toBe('none net.d/10-flannel.conflist')
  expect(host.install({ entry: '{"type":"ambridge","mode":"sidecar"}' }).at(-1)).toMatch(/^none/)
  expect(host.install({ entry: defaultEntry }).at(-1)).toBe('update net.d/10-flannel.conflist')
  expect(host.conf('10-flannel.conflist')).toBe(testdata('flannel.golden'))
})

test('the versions that may be chained to are those that the plugin speaks', () => {
  expect(chainableVersions).toEqual(supportedVersions)
})

test.for([
  ['no bin-dir', (h: Host) => rmSync(h.binDir, { recursive: true }), 'bin does not exist', '--bin-dir DIR'],
  [
    'no conf-dir',
    (h: Host) => rmSync(h.confDir, { recursive: true }),
    'net.d does not exist',
    '--conf-dir DIR',
  ],
  ['no executable', (h: Host) => rmSync(h.executable), 'built does not exist', '--executable PATH'],
  [
    'an empty conf-dir',
    (h: Host) => h.removeConf(),
    'no valid network configuration in ~/net.d',
    '"plugins"',
  ],
  [
    'only broken JSON',
    (h: Host) => h.putConf('10-flannel.conflist', '{\n  "name": x'),
    'in ~/net.d: 10-flannel.conflist is not JSON: line 2, column 11 (position 12)',
    'primary CNI first',
  ],
  [
    'a version that the plugin does not speak',
    (h: Host) => h.putConf('10-flannel.conflist', testdata('flannel.conflist').replace('0.3.1', '0.2.0')),
    '10-flannel.conflist has cniVersion 0.2.0, so nothing can be chained to it',
    '0.3.0, 0.3.1',
  ],
  [
    'no version',
    (h: Host) => h.putConf('10-flannel.conflist', '{"name":"n","plugins":[{"type":"ptp"}]}'),
    'has no cniVersion',
    '0.3.0, 0.3.1',
  ],
  [
    'a .conf beside a list of somebody else',
    (h: Host) => h.putConf('10-flannel.conf', testdata('macvlan.conf')),
    'cannot make a list of ~/net.d/10-flannel.conf: ~/net.d/10-flannel.conflist exists',
    '--conf-name 10-flannel.conflist',
  ],
  [
    'a directory where the executable belongs',
    (h: Host) => mkdirSync(join(h.binDir, 'ambridge')),
    'bin/ambridge is a directory',
    'remove it',
  ],
  [
    'a file where the native directory belongs',
    (h: Host) => writeFileSync(join(h.binDir, '.ambridge-1.2.3'), ''),
    'bin/.ambridge-1.2.3 is not a directory',
    'remove it',
  ],
] as const)('refuses %s and changes nothing', ([, spoil, message, remedy]) => {
  const host = flannelHost()
  spoil(host)
  const before = host.everything()
  expect(host.failure(() => host.install())).toEqual({
    message: expect.stringContaining(message),
    remedy: expect.stringContaining(remedy),
  })
  expect(host.everything()).toEqual(before)
})

test.for([
  ['{', 'the entry is not JSON: line 1, column 2 (position 1)'],
  ['[]', 'the entry is not a JSON object'],
  ['{}', 'the entry must have "type": "ambridge"'],
  ['{"type":"ambridge","logFile":"here"}', 'the entry has logFile that must match pattern "^/"'],
  [
    '{"type":"ambridge","enrollment":{"source":"me"}}',
    'the entry has enrollment/source that must be equal to one of the allowed values',
  ],
] as const)('refuses the entry %s', ([entry, message]) => {
  const host = flannelHost()
  expect(host.failure(() => host.install({ entry }))).toMatchObject({ message })
  expect(host.listing()).toEqual(['net.d/10-flannel.conflist'])
})

test('refuses a named file that is missing or broken', () => {
  const host = flannelHost()
  host.putConf('20.conflist', '[]')
  expect(host.failure(() => host.install({ confName: '30.conf' })).message).toBe('no 30.conf in ~/net.d')
  expect(host.failure(() => host.install({ confName: '20.conf' })).message).toBe(
    '~/net.d/20.conflist is not a JSON object',
  )
})

test('refuses to write over a conflist that changed after it was read', () => {
  const host = flannelHost()
  const steps = planInstall(host.options())
  host.putConf('10-flannel.conflist', testdata('compact.conflist'))
  expect(host.failure(() => applySteps(steps)).message).toBe(
    '~/net.d/10-flannel.conflist changed while it was edited',
  )
  expect(host.conf('10-flannel.conflist')).toBe(testdata('compact.conflist'))
})

test('a run that fails on the way leaves the conflist as it was, and nothing half-written', () => {
  const host = flannelHost()
  const steps = planInstall(host.options())
  mkdirSync(join(host.binDir, 'ambridge'))
  expect(host.failure(() => applySteps(steps))).toEqual({
    message: 'cannot write ~/bin/ambridge: EISDIR',
    remedy: 'repair that, then run it again: what is in place is kept',
  })
  expect(host.conf('10-flannel.conflist')).toBe(testdata('flannel.conflist'))
  expect(host.listing().filter((path) => path.includes('tmp'))).toEqual([])
})

test('a temporary file of the same process id is no obstacle', () => {
  const host = flannelHost()
  const steps = planInstall(host.options())
  writeFileSync(join(host.binDir, `.ambridge.${process.pid}.ambridge-tmp`), 'half')
  applySteps(steps)
  expect(readFileSync(join(host.binDir, 'ambridge'), 'utf8')).toBe('the executable')
  expect(host.listing().filter((path) => path.includes('tmp'))).toEqual([])
})

/** As a user without rights: only a process of its own can be one. */
test.for(['bin', 'net.d'])('refuses a %s that it cannot write, before anything is written', async (name) => {
  const host = flannelHost()
  for (const dir of [host.binDir, host.confDir]) chmodSync(dir, 0o777)
  chmodSync(join(host.dir, name), 0o555)
  const script = `
    import { planInstall } from '${new URL('../../../installer/install.ts', import.meta.url)}'
    try { planInstall(${JSON.stringify({ ...host.options(), nativeFiles: [] })}) }
    catch ({ message, remedy }) { process.stdout.write(JSON.stringify({ message, remedy })) }`
  const user = process.geteuid?.() === 0 ? { uid: 65534, gid: 65534 } : {}
  const { stdout } = await execa(process.execPath, ['--input-type=module', '-e', script], {
    ...user,
    timeout: 20_000,
  })
  expect(JSON.parse(stdout)).toEqual({
    message: `cannot write to ${join(host.dir, name)}: EACCES`,
    remedy: 'run it as root',
  })
  expect(host.listing()).toEqual(['net.d/10-flannel.conflist'])
})
