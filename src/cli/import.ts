import { readFile, writeFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { text as readText } from 'node:stream/consumers'
import { Command, Option } from 'commander'
import { FarportError } from '../errors.ts'
import type { Format } from '../import/import-config.ts'
import { printable } from '../printable.ts'
import { EXIT } from './exit-code.ts'
import { type CommonFlags, run } from './run.ts'

/** As in import-config.ts, which is loaded only when it is needed. */
const FORMATS: readonly Format[] = ['ser2net.yaml', 'ser2net.conf', 'commands']

interface ImportFlags extends CommonFlags {
  from?: Format
  output?: string
  force?: true
}

/** Longer than anyone reads in a message. */
const MAX_WHAT = 120

export const importCommand = new Command('import')
  .description('make a farport.yaml of what ser2net, socat, com2tcp-rfc2217 or hub4com was told')
  .argument(
    '<file>',
    'ser2net.yaml, ser2net.conf, or lines that call the other programs; - for standard input',
  )
  .addOption(
    new Option('--from <format>', 'what the file is (default: told by its content)').choices(FORMATS),
  )
  .option('--output <file>', 'where to write it (default: standard output)')
  .option('--force', 'with --output: write over a file that is there')
  .addHelpText(
    'after',
    '\nEnds with 0 when all was taken over, with 1 when something was left out, which is told line by line on standard error.',
  )
  .action(async (file: string, flags: ImportFlags) => {
    let complete = true
    await run(flags, async ({ output }) => {
      const { importConfig } = await import('../import/import-config.ts')
      const name = file === '-' ? 'standard input' : basename(file)
      const { format, yaml, ports, links, leftOut } = importConfig(await contents(file), name, flags.from)
      complete = leftOut.length === 0
      if (flags.output !== undefined) await write(flags.output, yaml, flags.force === true)
      if (!output.json)
        for (const { line, what, why } of leftOut) say(`${name}:${line}: ${short(what)}: ${why}`)
      if (flags.output !== undefined && !output.json)
        say(`${flags.output}: ${ports} ports to share, ${links} links, ${leftOut.length} things left out`)
      output.result(
        {
          format,
          ports,
          links,
          leftOut,
          ...(flags.output === undefined ? { yaml } : { output: flags.output }),
        },
        flags.output === undefined ? yaml : '',
      )
    })
    if (process.exitCode === EXIT.ok && !complete) process.exitCode = EXIT.failed
  })

async function contents(file: string): Promise<string> {
  if (file === '-') return await readText(process.stdin)
  try {
    return await readFile(file, 'utf8')
  } catch (cause) {
    throw new FarportError('ERR_USAGE', `${file} can't be read: ${(cause as Error).message}`, { cause })
  }
}

async function write(file: string, yaml: string, force: boolean): Promise<void> {
  try {
    await writeFile(file, yaml, { flag: force ? 'w' : 'wx' })
  } catch (cause) {
    const isThere = (cause as NodeJS.ErrnoException).code === 'EEXIST'
    throw new FarportError(
      'ERR_USAGE',
      isThere
        ? `${file} is there already: --force writes over it`
        : `${file} can't be written: ${(cause as Error).message}`,
      { cause },
    )
  }
}

function say(text: string): void {
  process.stderr.write(`${printable(text)}\n`)
}

function short(text: string): string {
  return text.length > MAX_WHAT ? `${text.slice(0, MAX_WHAT)}…` : text
}
