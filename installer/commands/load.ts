// SPDX-License-Identifier: Apache-2.0
import { Command, InvalidArgumentError, Option } from 'commander'
import { load } from '../programs/load.ts'
import { type LoadOptions, probeModes } from '../programs/settings.ts'
import { bpffsOption, type Output, outputOption, print } from './options.ts'

const repeated = (value: string, before: string[] = []) => [...before, value]

function uid(text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text)
  throw new InvalidArgumentError('expected a user id, such as 0')
}

/** `ambridge load`: once per node. */
export function loadCommand(): Command {
  return new Command('load')
    .description('load, pin and attach the eBPF programs; again: repair, upgrade, or change what is given')
    .option('--cgroup <path>', 'where to capture: auto (default), or a cgroup v2')
    .addOption(
      new Option('--proxy-identity <kind>', 'how proxies are told apart').choices(['cgroup', 'mark']),
    )
    .addOption(new Option('--proxy-cgroup <path>', 'a proxy runs here (repeatable)').argParser(repeated))
    .option('--shared-proxy-netns <path>', 'network namespace of the proxy of mode ambient-shared')
    .addOption(
      new Option('--probes <mode>', 'whose connections reach pods directly').choices([...probeModes]),
    )
    .option('--kubelet-cgroup <path>', 'a cgroup that holds the kubelet alone')
    .addOption(new Option('--kubelet-uid <uid>', 'for --probes uid').argParser(uid))
    .option('--sidecar', 'attach for mode sidecar, too')
    .option('--no-sidecar', 'stop that')
    .option('--guard', 'attach for egressGuard, too')
    .option('--no-guard', 'stop that')
    .addOption(bpffsOption())
    .addOption(outputOption())
    .action(({ output, proxyCgroup = [], ...options }: Flags, command: Command) => {
      const steps = load({ ...options, proxyCgroups: proxyCgroup })
      print(
        command,
        output,
        steps,
        steps.map(({ kind, name, result }) => `${kind} ${name}: ${result}`),
      )
    })
}

type Flags = Omit<LoadOptions, 'proxyCgroups'> & { readonly output: Output; readonly proxyCgroup?: string[] }
