import { Argument, Command } from 'commander'

/** Pages for man(1), made of what the commands and the schema of farport.yaml say about themselves. */
export const manualCommand = new Command('manual')
  .description('print a manual page, as for  farport manual | man -l -')
  .addArgument(new Argument('[page]', 'which one').choices(['farport', 'farport.yaml']).default('farport'))
  .action(async (page: string, _flags: object, { parent }: Command) => {
    const { commandsPage, configPage } = await import('./manual-page.ts')
    process.stdout.write(page === 'farport' ? commandsPage(parent as Command) : configPage())
  })
