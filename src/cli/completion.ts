import { Argument, Command } from 'commander'

const PROGRAM = 'farport'

/** Prints the script for a shell; what Tab then offers comes from {@link completeCommand}. */
export const completionCommand = new Command('completion')
  .description('print a script by which a shell completes commands, options and names of peers')
  .addArgument(new Argument('<shell>', 'the shell it is for').choices(['bash', 'zsh', 'fish']))
  .addHelpText(
    'after',
    `
In ~/.bashrc:                  source <(farport completion bash)    with the package bash-completion
In ~/.zshrc, after compinit:   source <(farport completion zsh)
For fish:                      farport completion fish > ~/.config/fish/completions/farport.fish
The Debian package brings all three.`,
  )
  .action(async (shell: string, _flags: object, { parent }: Command) => {
    const { completionOf } = await import('./suggestions.ts')
    ;(await completionOf(parent as Command, [])).setup(PROGRAM, PROGRAM, shell)
  })

/** What the scripts call: `farport complete -- WORD…`, the last word being the one that is typed. */
export const completeCommand = new Command('complete')
  .argument('[words...]')
  .allowUnknownOption()
  .action(async (words: string[], _flags: object, { parent }: Command) => {
    const { completionOf } = await import('./suggestions.ts')
    ;(await completionOf(parent as Command, words)).parse(words)
  })
