// SPDX-License-Identifier: Apache-2.0
/**
 * build/main.cjs, with the other bundles and the native files as assets, → dist/ambridge: a single executable of pkg
 * around the Node of node_modules, for the architecture that it is built on.
 */
import {
  chmodSync,
  existsSync,
  globSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs'
import { basename, join, resolve } from 'node:path'
// Its main entry takes neither assets nor a path to Node; there is no exports map, so pkg's version is pinned.
import pkg from '@yao-pkg/pkg/lib-es5/sea.js'
import { execa } from 'execa'

const root = resolve(import.meta.dirname, '../..')
const { arch } = process
const at = (...path: string[]) => join(root, ...path)

const output = at('dist/ambridge')
const nodePackage = at(`node_modules/node-linux-${arch}`)
const node = join(nodePackage, 'bin/node')
const bytecodeMaker = at('installer/build/bytecode.ts')
const main = at('build/main.cjs')
const bundles = ['plugin', 'cli', 'winston'].map((name) => at(`build/${name}.cjs`))
const bytecode = bundles.map((file) => file.replace('.cjs', '.bytecode'))
const programs = new Set([
  at('build/ambridge.bpf.o'),
  at('build/inbound.bpf.o'),
  ...globSync(at('build/*.bpf.o')),
])
const files = [
  ...bundles,
  at('build/libbpf.so'),
  at(`node_modules/@koromix/koffi-linux-${arch}/linux_${arch}/koffi.node`),
  ...[...programs].sort(),
]
const inputs = [node, main, ...files]

function requireInputs(): void {
  const missing = inputs.filter((file) => !existsSync(file))
  if (missing.length === 0) return
  const remedy = 'npm ci brings what is in node_modules, npm run build makes the rest'
  throw new Error(`cannot build ${output}: missing ${missing.join(', ')}: ${remedy}`)
}

function isUpToDate(): boolean {
  const built = statSync(output, { throwIfNoEntry: false })?.mtimeMs ?? 0
  return [...inputs, bytecodeMaker, import.meta.filename].every((file) => statSync(file).mtimeMs < built)
}

/** Every path is absolute: pkg works in a temporary directory. */
async function build(target: string): Promise<void> {
  const { version } = JSON.parse(readFileSync(join(nodePackage, 'package.json'), 'utf8'))
  const seaConfig = {
    useCodeCache: true,
    useSnapshot: false,
    disableExperimentalSEAWarning: true,
    // Without it NODE_OPTIONS of the container runtime's environment could load code into a root process.
    execArgvExtension: 'none',
    // A process of some milliseconds needs no four threads for the engine, and one that is root no debugger on SIGUSR1.
    execArgv: ['--v8-pool-size=1', '--disable-sigusr1'],
    assets: Object.fromEntries([...files, ...bytecode].map((file) => [basename(file), file])),
  }
  await pkg.default(main, {
    targets: [{ nodeRange: `node${version}`, platform: 'linux', arch, output: target }],
    nodePath: node,
    signature: false,
    seaConfig,
  })
  chmodSync(target, 0o755)
}

/** The answer to VERSION, with an environment that would break a Node that listens to NODE_OPTIONS. */
async function verify(executable: string): Promise<void> {
  const env = { CNI_COMMAND: 'VERSION', NODE_OPTIONS: '--require /nonexistent.cjs' }
  const { stdout } = await execa(executable, [], { env, extendEnv: false, timeout: 30_000 })
  const { supportedVersions } = JSON.parse(stdout)
  if (!Array.isArray(supportedVersions))
    throw new Error(`${executable}: unexpected answer to VERSION: ${stdout}`)
}

async function replaceOutput(): Promise<void> {
  mkdirSync(at('dist'), { recursive: true })
  const temporary = `${output}.${process.pid}.tmp`
  await execa(node, [bytecodeMaker, ...bundles], { env: { NODE_OPTIONS: '' }, timeout: 60_000 })
  try {
    await build(temporary)
    await verify(temporary)
    renameSync(temporary, output)
  } finally {
    rmSync(temporary, { force: true })
  }
}

try {
  requireInputs()
  if (!isUpToDate()) await replaceOutput()
} catch (err) {
  process.stderr.write(`build: ${err instanceof Error ? err.message : err}\n`)
  process.exitCode = 1
}
