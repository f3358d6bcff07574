import { encode } from 'uqr'

/** The standard asks for four light modules around the code; scanners manage with fewer, but not with none. */
const QUIET_ZONES = [4, 3, 2, 1]

/**
 * Draws `text` as a QR code of characters that stand for two modules each, in lines without an end. `undefined` when
 * it does not fit into `columns` and `rows`.
 *
 * Light modules are drawn and dark ones left blank, as belongs on a dark terminal. On a light one the code is inverse,
 * quiet zone and all, which QR Code 2005 allows and most scanners try (zbar only when told to). Colours would be right
 * on both, until they are copied, logged, or switched off.
 */
export function drawQr(
  text: string,
  { columns, rows }: { columns: number; rows: number },
): string | undefined {
  const modules = modulesOf(text)
  if (modules === undefined) return undefined
  const quiet = QUIET_ZONES.find((zone) => {
    const width = modules.length + 2 * zone
    return width <= columns && Math.ceil(width / 2) <= rows
  })
  if (quiet === undefined) return undefined

  const isLight = (x: number, y: number) => modules[y - quiet]?.[x - quiet] !== true
  const width = modules.length + 2 * quiet
  const lines: string[] = []
  for (let y = 0; y < width; y += 2) {
    let line = ''
    for (let x = 0; x < width; x++) line += block(isLight(x, y), isLight(x, y + 1))
    lines.push(line)
  }
  return lines.join('\n')
}

/** Rows of modules, true for dark; `undefined` for more text than the largest code holds. */
function modulesOf(text: string): boolean[][] | undefined {
  try {
    // More error correction where it costs no size.
    return encode(text, { ecc: 'L', boostEcc: true, border: 0 }).data
  } catch (error) {
    if (error instanceof RangeError) return undefined
    throw error
  }
}

function block(top: boolean, bottom: boolean): string {
  if (top) return bottom ? '█' : '▀'
  return bottom ? '▄' : ' '
}
