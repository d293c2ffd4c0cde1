// SPDX-License-Identifier: Apache-2.0
import { type Command, Option } from 'commander'

export const outputOption = () =>
  new Option('-o, --output <format>', 'output format').choices(['text', 'json']).default('text')

export const bpffsOption = () =>
  new Option('--bpffs <dir>', 'folder of the pins, in a bpffs').default('/sys/fs/bpf/ambridge')

export type Output = 'text' | 'json'

/** Writes JSON, or the lines. */
export function print(command: Command, output: Output, value: unknown, lines: readonly string[]): void {
  const text = output === 'json' ? JSON.stringify(value, null, 2) : lines.join('\n')
  command.configureOutput().writeOut?.(`${text}\n`)
}
