// SPDX-License-Identifier: Apache-2.0
import { Command } from 'commander'
import { unload } from '../programs/unload.ts'
import { bpffsOption, type Output, outputOption, print } from './options.ts'

/** `ambridge unload`: the inverse of load, pods included. */
export function unloadCommand(): Command {
  return new Command('unload')
    .description('remove every link, program and map; pods are captured no more')
    .addOption(bpffsOption())
    .addOption(outputOption())
    .action(({ bpffs, output }: { bpffs: string; output: Output }, command: Command) => {
      const steps = unload(bpffs)
      const lines =
        steps.length === 0
          ? ['nothing is loaded']
          : steps.map(({ kind, name, result }) => `${kind} ${name}: ${result}`)
      print(command, output, steps, lines)
    })
}
