import { FarportError } from '../errors.ts'
import { parseReset } from '../serial/line-sequence.ts'
import { MAX_GAP_MS, MAX_PIECE_BYTES, type Packing, parseUntil } from '../serial/packer.ts'
import type { Share } from './config.ts'
import { parseBytes, parseDuration } from './units.ts'

type ShareOptions = Pick<Share, 'reset' | 'pack'>

/**
 * What is said of a shared port besides its device and name, in the words of farport.yaml:
 *
 *   reset=esp32            or esp32-usb, arduino-1200, off, or a sequence: see line-sequence.ts
 *   pack.gap=2ms           a piece ends where the line is silent for so long
 *   pack.size=256          or when it has so many bytes
 *   pack.until=\n          or with these
 *
 * @throws FarportError ERR_USAGE that names the option and what would be right
 */
export function parseShareOptions(
  options: readonly (readonly [name: string, value: string])[],
): ShareOptions {
  const said = new Set<string>()
  const shared: { -readonly [K in keyof ShareOptions]: ShareOptions[K] } = {}
  const pack: { -readonly [K in keyof Packing]: Packing[K] } = {}
  for (const [name, value] of options) {
    if (said.has(name)) throw new FarportError('ERR_USAGE', `${name}= is said twice: once is right`)
    said.add(name)
    switch (name) {
      case 'reset': {
        const reset = parseReset(value)
        if (reset !== undefined) shared.reset = reset
        break
      }
      case 'pack.gap':
        pack.gapMs = inRange(name, parseDuration(value), 1, MAX_GAP_MS, `2ms, and ${MAX_GAP_MS}ms at most`)
        break
      case 'pack.size':
        pack.sizeBytes = inRange(
          name,
          parseBytes(value),
          1,
          MAX_PIECE_BYTES,
          `256, and ${MAX_PIECE_BYTES} at most`,
        )
        break
      case 'pack.until':
        pack.until = parseUntil(value)
        break
      default:
        throw new FarportError(
          'ERR_USAGE',
          `“${name}” is no option of a shared port: there are reset=, pack.gap=, pack.size= and pack.until=`,
        )
    }
  }
  if (Object.keys(pack).length > 0) shared.pack = pack
  return shared
}

function inRange(
  name: string,
  value: number | undefined,
  least: number,
  most: number,
  example: string,
): number {
  if (value !== undefined && value >= least && value <= most) return value
  throw new FarportError('ERR_USAGE', `${name}= is something like ${example}`)
}
