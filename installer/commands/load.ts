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

/** How the programs are loaded: options of `load` and of `agent`. */
export function loadOptions(): Option[] {
  return [
    new Option('--cgroup <path>', 'where to capture: auto (default), or a cgroup v2'),
    new Option('--proxy-identity <kind>', 'how proxies are told apart').choices(['cgroup', 'mark']),
    new Option('--proxy-cgroup <path>', 'a proxy runs here (repeatable)').argParser(repeated),
    new Option('--shared-proxy-netns <path>', 'network namespace of the proxy of mode ambient-shared'),
    new Option('--probes <mode>', 'whose connections reach pods directly').choices([...probeModes]),
    new Option('--kubelet-cgroup <path>', 'a cgroup that holds the kubelet alone'),
    new Option('--kubelet-uid <uid>', 'for --probes uid').argParser(uid),
    new Option('--sidecar', 'attach for mode sidecar, too'),
    new Option('--no-sidecar', 'stop that'),
    new Option('--guard', 'attach for egressGuard, too'),
    new Option('--no-guard', 'stop that'),
  ]
}

/** `ambridge load`: once per node. */
export function loadCommand(): Command {
  const command = new Command('load').description(
    'load, pin and attach the eBPF programs; again: repair, upgrade, or change what is given',
  )
  for (const option of loadOptions()) command.addOption(option)
  return command
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
