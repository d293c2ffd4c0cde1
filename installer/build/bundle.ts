// SPDX-License-Identifier: Apache-2.0
// Each bundle of the executable → build/NAME.cjs. A bundle that stays the same is not touched.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { build } from 'esbuild'

const root = resolve(import.meta.dirname, '../..')
/** `main` loads the others (src/bundle.ts). winston is one of its own: what is seldom loaded slows nobody down. */
const bundles = { main: 'src/main.ts', plugin: 'src/plugin.ts', cli: 'installer/main.ts', winston: 'winston' }

const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))

async function bundle(name: string, entry: string): Promise<Uint8Array> {
  const { outputFiles } = await build({
    absWorkingDir: root,
    entryPoints: [entry],
    external: name === 'winston' ? [] : ['winston'],
    write: false,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node24',
    minify: true,
    legalComments: 'none',
    // build/ is as deep in the repository as src/.
    define: { __VERSION__: JSON.stringify(version), 'import.meta.dirname': '__dirname' },
    // Inside the executable only built-in modules can be imported. What is bundled stays lazy: it runs when asked for.
    supported: { 'dynamic-import': false },
  })
  const [output] = outputFiles
  if (output === undefined) throw new Error(`${entry}: the bundler made no output`)
  return output.contents
}

function writeIfChanged(file: string, contents: Uint8Array): void {
  if (existsSync(file) && readFileSync(file).equals(contents)) return
  writeFileSync(file, contents)
}

mkdirSync(join(root, 'build'), { recursive: true })
for (const [name, entry] of Object.entries(bundles)) {
  writeIfChanged(join(root, 'build', `${name}.cjs`), await bundle(name, entry))
}
