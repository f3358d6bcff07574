import { parseConfigFile } from '../config/config-file.ts'
import { FarportError } from '../errors.ts'
import { readCom2tcp } from './com2tcp.ts'
import { commandLines, isCommandLine } from './command-lines.ts'
import { Draft, type LeftOut } from './draft.ts'
import { readHub4com } from './hub4com.ts'
import { isSer2netConfLine, readSer2netConf } from './ser2net-conf.ts'
import { isSer2netYamlLine, readSer2netYaml } from './ser2net-yaml.ts'
import { readSocat } from './socat.ts'
import { writeConfig } from './write-config.ts'

/** Beyond this nobody has written it by hand. */
const MAX_INPUT_BYTES = 1024 * 1024

/** What can be read. `commands`: lines that call socat, com2tcp, com2tcp-rfc2217 or hub4com. */
export type Format = 'ser2net.yaml' | 'ser2net.conf' | 'commands'

export interface Imported {
  readonly format: Format
  /** A farport.yaml, with comments that say where each entry comes from. */
  readonly yaml: string
  readonly ports: number
  readonly links: number
  /** By their lines. */
  readonly leftOut: readonly LeftOut[]
}

/**
 * A farport.yaml that does what a configuration of another program did, as far as farport can.
 * @param name what the input is called, for comments and messages
 * @param from what it is; by default told by its content
 * @throws FarportError ERR_USAGE for what is none of these
 */
export function importConfig(input: string, name: string, from?: Format): Imported {
  // Windows' editors begin a file with a mark.
  const text = input.replace(/^\ufeff/, '')
  if (Buffer.byteLength(text) > MAX_INPUT_BYTES)
    throw new FarportError('ERR_USAGE', `${name} is larger than 1 MiB`)
  const format = from ?? formatOf(text)
  if (format === undefined)
    throw new FarportError(
      'ERR_USAGE',
      `${name} is none of what farport can take over: ser2net.yaml, ser2net.conf, or lines that call socat, com2tcp-rfc2217 or hub4com; --from says which it is`,
    )
  const draft = new Draft()
  read(format, text, draft, name)
  const yaml = writeConfig(draft, name)
  // Each setting has been tried; that they are too much together shows only here.
  parseConfigFile(yaml, `what ${name} would become`)
  return { format, yaml, ports: draft.ports.size, links: draft.links.length, leftOut: draft.leftOut }
}

function read(format: Format, text: string, draft: Draft, name: string): void {
  switch (format) {
    case 'ser2net.yaml':
      readSer2netYaml(text, draft, name)
      break
    case 'ser2net.conf':
      readSer2netConf(text, draft)
      break
    case 'commands':
      for (const command of commandLines(text)) {
        if (!('program' in command))
          draft.leaveOut(
            { line: command.line, what: command.text },
            'calls no program that farport can take over',
          )
        else if (command.program === 'socat') readSocat(command, draft)
        else if (command.program === 'hub4com') readHub4com(command, draft)
        else readCom2tcp(command, draft)
      }
  }
}

function formatOf(text: string): Format | undefined {
  const lines = text.split(/\r?\n/)
  if (lines.some(isSer2netConfLine)) return 'ser2net.conf'
  if (lines.some(isSer2netYamlLine)) return 'ser2net.yaml'
  return lines.some(isCommandLine) ? 'commands' : undefined
}
