import { Command } from 'commander'
import { type DescribedKey, describedKeys } from '../config/describe-keys.ts'
import { configPath } from '../config/home.ts'
import { loadConfig } from '../config/load-config.ts'
import { FarportError } from '../errors.ts'
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

const helpCommand = new Command('help')
  .description('what may stand in farport.yaml: all of it, or one key, as in `farport config help line`')
  .argument('[key]', 'as it stands in the file, or with what it is in: ports.NAME.line')
  .configureHelp({ showGlobalOptions: true })
  .exitOverride()
  .action((key: string | undefined, _own: object, command: Command) => {
    const flags: CommonFlags = command.optsWithGlobals()
    return run(flags, async ({ output }) => {
      const keys = key === undefined ? all() : keysAbout(key)
      if (keys.length === 0)
        throw new FarportError(
          'ERR_USAGE',
          `there is no key ${key} in farport.yaml: \`farport config help\` prints them all`,
        )
      output.result({ keys }, keys.map(paragraph).join('\n'))
    })
  })

/** What `defaults` holds is what a port may be told. */
function all(): DescribedKey[] {
  return describedKeys().filter(({ key }) => !key.startsWith('defaults.'))
}

/** Those of that name, wherever they stand, and what is in them. */
function keysAbout(asked: string): DescribedKey[] {
  const name = asked.replace(/^defaults\./, 'ports.NAME.')
  const isMeant = (key: string) => key === name || key.endsWith(`.${name}`)
  return all().filter(({ key }) =>
    [...key.matchAll(/\.|\[\]|$/g)].some(({ index }) => isMeant(key.slice(0, index))),
  )
}

function paragraph({ key, text, mayBeLeftOut, example }: DescribedKey): string {
  const name = key.split('.').at(-1) as string
  const shown = example === undefined ? '' : `    ${name}: ${example}\n`
  return `${key}\n    ${text}${mayBeLeftOut ? '' : ' (has to be there)'}\n${shown}`
}

export const configCommand = new Command('config')
  .description('farport.yaml')
  .helpCommand(false)
  .addCommand(checkCommand)
  .addCommand(helpCommand)
