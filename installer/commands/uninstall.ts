// SPDX-License-Identifier: Apache-2.0
import type { Command } from 'commander'
import { planUninstall, type UninstallOptions } from '../uninstall.ts'
import { hostCommand, runSteps, type StepOptions } from './install.ts'

/** `ambridge uninstall`: undoes `ambridge install` and leaves the rest of the host alone. */
export function uninstallCommand(): Command {
  return hostCommand('uninstall')
    .description('take the plugin off this host: the entry, the executable, the native files')
    .action((flags: UninstallOptions & StepOptions, command: Command) =>
      runSteps(planUninstall(flags), flags, command),
    )
}
