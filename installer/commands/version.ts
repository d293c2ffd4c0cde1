// SPDX-License-Identifier: Apache-2.0
import { Command, Option } from 'commander'

/** Set by the bundler. */
declare const __VERSION__: string

const version = typeof __VERSION__ === 'undefined' ? 'development' : __VERSION__

/** `ambridge version`: this executable, and the Node inside it. */
export function versionCommand(): Command {
  return new Command('version')
    .description('print the version')
    .addOption(new Option('-o, --output <format>', 'output format').choices(['text', 'json']).default('text'))
    .action(({ output }: { output: 'text' | 'json' }) => {
      const facts = { version, node: process.versions.node, arch: process.arch }
      const text = `ambridge ${facts.version} (node ${facts.node}, ${facts.arch})`
      process.stdout.write(`${output === 'json' ? JSON.stringify(facts) : text}\n`)
    })
}
