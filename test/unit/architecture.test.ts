// SPDX-License-Identifier: Apache-2.0
import { existsSync, globSync, readFileSync } from 'node:fs'
import { join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
const below = ['policy', 'agent-api', 'schema', 'bpf', 'linux']
/** Files of src/ that import nothing of ours. */
const leaves = ['log', 'address', 'json-syntax', 'remedy']

/** Folder (or file of src/) → what it may import besides itself. */
const allowed: Readonly<Record<string, readonly string[]>> = {
  main: ['bundle'],
  plugin: ['cni', 'log'],
  cni: [...below, 'pods', ...leaves],
  installer: [...below, 'pods', 'zds', 'k8s', ...leaves, 'native'],
  // What both do to a pod: it composes bpf and linux, which do not know each other.
  pods: ['bpf', 'linux', 'address', 'native', 'remedy'],
  policy: ['address'],
  bpf: [...leaves, 'native'],
  linux: [...leaves, 'native'],
  // The plugin's half is a client of a socket, the agent's a server.
  'agent-api': ['linux', 'policy', 'schema', 'log', 'native', 'remedy'],
  zds: ['linux', 'log', 'native', 'remedy'],
  k8s: ['policy', 'log', 'remedy'],
  test: [
    'main',
    'cni',
    'installer',
    'zds',
    'k8s',
    'pods',
    ...leaves,
    'native',
    ...below,
    'conf',
    'bpf-sources',
  ],
}

/** Package → the only files that may import it. */
const confined: Readonly<Record<string, RegExp>> = {
  koffi: /^src\/native\.ts$/,
  winston: /^src\/log\.ts$/,
  execa: /^(installer|test)\//,
}

interface Import {
  readonly file: string
  /** Path from the root, or the name of a package. */
  readonly target: string
  readonly dynamic: boolean
}

const files = globSync('{src,installer,conf,bpf,test}/**/*.{ts,cts}', { cwd: root }).toSorted()
const imports = files.flatMap(importsOf)

function importsOf(file: string): Import[] {
  const pattern =
    /^(?:import|export)\b[^'"]*?\bfrom '([^']+)'|^import '([^']+)'|\b(import|require)\(\s*'([^']+)'\s*\)/gm
  const code = readFileSync(join(root, file), 'utf8').replace(/^\s*(\/?\*|\/\/).*$/gm, '')
  return [...code.matchAll(pattern)].map(([, from, bare, call, called]) => {
    const target = from ?? bare ?? called ?? ''
    const relative = target.startsWith('.')
    return {
      file,
      target: relative ? normalize(join(file, '..', target)) : target,
      dynamic: call !== undefined,
    }
  })
}

/** src/cni/run.ts → cni; src/log.ts → log; bpf/gen-layout.ts → bpf-sources. */
function folderOf(path: string): string {
  const [top = '', second = ''] = path.split('/')
  if (top === 'src') return second.replace(/\.ts$/, '')
  return top === 'bpf' ? 'bpf-sources' : top
}

function isAllowed({ file, target, dynamic }: Import): boolean {
  const [from, to] = [folderOf(file), folderOf(target)]
  if (target.endsWith('/layout.gen.ts') && from !== 'bpf') return false
  // The agent's bundle, loaded only when it is asked for.
  if (from === 'main' && to === 'installer') return dynamic
  return from === to || (allowed[from] ?? []).includes(to)
}

const relative = imports.filter(({ target }) => existsSync(join(root, target)))

test('this test sees the imports', () => {
  expect(relative).toContainEqual({ file: 'src/cni/run.ts', target: 'src/cni/env.ts', dynamic: false })
  expect(relative).toContainEqual({
    file: 'src/cni/errors.ts',
    target: 'src/policy/error.ts',
    dynamic: false,
  })
  expect(imports).toContainEqual({ file: 'src/log.ts', target: 'winston', dynamic: true })
})

test.for([
  ['src/policy/decide.ts', 'src/bpf/pods.ts'],
  ['src/policy/decide.ts', 'src/log.ts'],
  ['src/linux/netns.ts', 'src/bpf/pods.ts'],
  ['src/cni/add.ts', 'src/native.ts'],
  ['src/cni/add.ts', 'src/plugin.ts'],
  ['src/cni/add.ts', 'src/zds/server.ts'],
  ['src/cni/add.ts', 'src/bpf/layout.gen.ts'],
  ['src/main.ts', 'src/cni/run.ts'],
  ['src/plugin.ts', 'installer/main.ts'],
  ['src/log.ts', 'src/native.ts'],
  ['src/address.ts', 'src/log.ts'],
  ['src/bpf/pods.ts', 'src/cni/run.ts'],
  ['src/bpf/pods.ts', 'src/pods/enroll.ts'],
  ['src/pods/enroll.ts', 'src/policy/decide.ts'],
  ['installer/main.ts', 'src/cni/run.ts'],
  ['installer/main.ts', 'test/support/exec.ts'],
  ['conf/gen-validators.ts', 'installer/main.ts'],
] as const)('the rules forbid %s to import %s', ([file, target]) => {
  expect(isAllowed({ file, target, dynamic: false })).toBe(false)
})

test.for(relative.map(({ file, target, dynamic }) => ({ file, target, dynamic })))(
  '$file may import $target',
  (found) => {
    expect(isAllowed(found)).toBe(true)
  },
)

test.for(Object.entries(confined))('%s is imported only where it may be', ([name, where]) => {
  const importers = imports
    .filter(({ target }) => `${target}/`.startsWith(`${name}/`))
    .map(({ file }) => file)
  expect(importers.filter((file) => !where.test(file))).toEqual([])
})

const sources = files.filter((file) => /^(src|installer)\//.test(file) && !file.includes('.gen.'))

test.for(sources)('%s is short and exports one class at most', (file) => {
  const code = readFileSync(join(root, file), 'utf8')
  expect(code.trimEnd().split('\n').length).toBeLessThanOrEqual(200)
  expect((code.match(/^export (abstract )?class /gm) ?? []).length).toBeLessThanOrEqual(1)
})
