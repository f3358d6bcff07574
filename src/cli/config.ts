import { Command } from 'commander'
import { configPath } from '../config/home.ts'
import { loadConfig } from '../config/load-config.ts'
import { type CommonFlags, run } from './run.ts'

interface CheckFlags extends CommonFlags {
  config?: string
}

const checkCommand = new Command('check')
  .description('look over farport.yaml without starting anything; exit code 2 when something is wrong')
  .option('--config <file>', 'the configuration (default: farport.yaml in the home)')
  .configureHelp({ showGlobalOptions: true })
  .exitOverride()
  .action((_own: object, command: Command) => {
    const flags: CheckFlags = command.optsWithGlobals()
    return run(flags, async ({ home, output }) => {
      const path = flags.config ?? configPath(home)
      const { shares, links, relays = [] } = await loadConfig(path, home)
      output.result(
        { file: path, ports: shares.length, links: links.length, relays: relays.length },
        `${path} is fine: ${shares.length} ports to share, ${links.length} links, ${relays.length} relays\n`,
      )
    })
  })

export const configCommand = new Command('config').description('farport.yaml').addCommand(checkCommand)
