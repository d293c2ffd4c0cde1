// SPDX-License-Identifier: Apache-2.0
/** The command line, `ambridge <command>`: a bundle that the one executable carries as an asset. */
import { Command, CommanderError } from 'commander'
import { agentCommand } from './commands/agent.ts'
import { installCommand } from './commands/install.ts'
import { loadCommand } from './commands/load.ts'
import { statusCommand } from './commands/status.ts'
import { uninstallCommand } from './commands/uninstall.ts'
import { unloadCommand } from './commands/unload.ts'
import { versionCommand } from './commands/version.ts'

const commands: readonly Command[] = [
  agentCommand(),
  installCommand(),
  uninstallCommand(),
  loadCommand(),
  unloadCommand(),
  statusCommand(),
  versionCommand(),
]

function program(): Command {
  const root = new Command('ambridge')
    .description('Istio CNI plugin with eBPF: pods join an ambient mesh at the socket, behind any CNI')
    .usage('<command> [options]')
    .addHelpText('after', '\nWith CNI_COMMAND in the environment it is the CNI plugin.')
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'ambridge: ')) })
    .showHelpAfterError('  see: ambridge --help')
    .exitOverride()
  for (const command of commands) root.addCommand(command.copyInheritedSettings(root))
  return root
}

/** Exit code: 0 done, 1 the command failed, 2 the command line is wrong. */
async function run(args: readonly string[]): Promise<number> {
  const root = program()
  if (args.length === 0) {
    root.outputHelp()
    return 0
  }
  try {
    await root.parseAsync([...args], { from: 'user' })
    return 0
  } catch (err) {
    if (err instanceof CommanderError) return err.exitCode === 0 ? 0 : 2
    process.stderr.write(report(err))
    return 1
  }
}

/** What went wrong, and below it what to do, where the error knows. */
function report(err: unknown): string {
  const { message, remedy } = err instanceof Error ? (err as Error & { remedy?: unknown }) : { message: err }
  const advice = typeof remedy === 'string' ? `  ${remedy}\n` : ''
  return `ambridge: ${message}\n${advice}`
}

void run(process.argv.slice(2)).then((code) => {
  process.exitCode = code
})
