import { Command, CommanderError, Option } from 'commander'
import packageJson from '../../package.json' with { type: 'json' }
import { completeCommand, completionCommand } from './completion.ts'
import { configCommand } from './config.ts'
import { connectCommand } from './connect.ts'
import { demoCommand } from './demo.ts'
import { doctorCommand } from './doctor.ts'
import { EXIT } from './exit-code.ts'
import { idCommand } from './id.ts'
import { importCommand } from './import.ts'
import { inviteCommand } from './invite.ts'
import { manualCommand } from './manual.ts'
import { pairCommand } from './pair.ts'
import { peersCommand } from './peers.ts'
import { pingCommand } from './ping.ts'
import { portsCommand } from './ports.ts'
import { relayCommand } from './relay.ts'
import { reloadCommand } from './reload.ts'
import { replayCommand } from './replay.ts'
import { revokeCommand } from './revoke.ts'
import { shareCommand } from './share.ts'
import { statusCommand } from './status.ts'
import { upCommand } from './up.ts'

const program = new Command('farport')
  .description('A serial port that is far away, made local: encrypted end to end, without VPN or account.')
  .version(packageJson.version)
  .exitOverride()
  .configureHelp({ showGlobalOptions: true })
  .showHelpAfterError('(try --help)')

for (const command of [
  shareCommand,
  relayCommand,
  upCommand,
  inviteCommand,
  pairCommand,
  connectCommand,
  portsCommand,
  statusCommand,
  pingCommand,
  doctorCommand,
  peersCommand,
  revokeCommand,
  idCommand,
  reloadCommand,
  configCommand,
  importCommand,
  replayCommand,
  demoCommand,
]) {
  command
    .option(
      '--home <dir>',
      'where keys and trusted_peers are (default: $FARPORT_HOME, else ~/.config/farport)',
    )
    .option('--json', 'machine-readable output: one object, or one a line for commands that stay')
    .addOption(
      new Option('--log-level <level>', 'what to log on standard error')
        .choices(['error', 'warn', 'info', 'debug', 'silent'])
        .default('warn'),
    )
    .exitOverride()
  program.addCommand(command)
}

// Without the options of the others, which are about homes and output.
for (const command of [completionCommand, manualCommand]) program.addCommand(command.exitOverride())
program.addCommand(completeCommand.exitOverride(), { hidden: true })

// `farport --help | head`: whoever read has gone, and commands hear of it themselves.
process.stdout.on('error', () => {})

try {
  await program.parseAsync()
} catch (error) {
  if (!(error instanceof CommanderError)) throw error
  // Help and version are asked for, everything else commander reports is a mistake on the command line.
  process.exitCode = error.exitCode === 0 ? EXIT.ok : EXIT.usage
}
