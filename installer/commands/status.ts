// SPDX-License-Identifier: Apache-2.0
import { Command } from 'commander'
import { type Status, status } from '../programs/status.ts'
import { bpffsOption, type Output, outputOption, print } from './options.ts'

/** `ambridge status`: programs, links, maps and pods of this node. */
export function statusCommand(): Command {
  return new Command('status')
    .description('show programs, links, maps and enrolled pods, and what is not alive')
    .addOption(bpffsOption())
    .addOption(outputOption())
    .action(({ bpffs, output }: { bpffs: string; output: Output }, command: Command) => {
      const facts = status(bpffs)
      print(command, output, facts, summary(facts))
    })
}

function summary({ loaded, bpffs, programs, links, pods }: Status): string[] {
  if (!loaded) return [`not loaded: nothing in ${bpffs}`, '  run: ambridge load']
  const state = (alive: boolean) => (alive ? 'alive' : 'SEVERED')
  return [
    `loaded in ${bpffs}: ${programs.length} programs, ${links.length} links, ${pods.length} pods`,
    ...links.map(
      ({ program, cgroup = 'a cgroup that is gone', alive }) =>
        `link ${program} on ${cgroup}: ${state(alive)}`,
    ),
    ...pods.map(({ namespace, name, containerId, mode, addresses, alive }) => {
      const who = name === '' ? containerId : `${namespace}/${name}`
      return `pod ${who}: ${mode}, ${addresses.join(' ')}, inbound ${state(alive)}`
    }),
  ]
}
