import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { encode } from 'uqr'
import { formatPeerId } from '../../src/trust/peer-id.ts'
import { drawQr } from '../../src/trust/qr.ts'
import { encodeTicket } from '../../src/trust/ticket.ts'

const HUGE = { columns: 1000, rows: 1000 }
const capitals = (length: number) => 'FARPORT1'.repeat(length / 8 + 1).slice(0, length)

/** Rows of modules as a camera sees them on a dark terminal: true for dark. */
function modulesOf(drawing: string): boolean[][] {
  return drawing.split('\n').flatMap((line) => {
    assert.match(line, /^[█▀▄ ]+$/)
    return [[...line].map((c) => c === ' ' || c === '▄'), [...line].map((c) => c === ' ' || c === '▀')]
  })
}

/** The modules without the light ones around, which must all be there. */
function unframed(drawing: string, quiet: number): boolean[][] {
  const rows = modulesOf(drawing)
  const size = (rows[0]?.length ?? 0) - 2 * quiet
  const inside = rows.slice(quiet, quiet + size).map((row) => row.slice(quiet, quiet + size))
  const dark = (rows: boolean[][]) => rows.flat().filter((module) => module).length
  assert.equal(dark(rows), dark(inside), 'nothing dark in the quiet zone')
  assert.ok(rows.length - size - quiet >= quiet)
  return inside
}

test('draws what a scanner reads', () => {
  // Rendered to pixels, light on dark, zbarimg and jsQR read FARPORT1 from this.
  assert.equal(drawQr('FARPORT1', { columns: 23, rows: 12 }), GOLDEN)
})

test('draws exactly the modules of the code, the quiet zone around it light', () => {
  const text = fc.string({ unit: fc.constantFrom(...'FARPORT1QPZRY9X8'), minLength: 1, maxLength: 300 })
  fc.assert(
    fc.property(text, (text) => {
      const expected = encode(text, { ecc: 'L', boostEcc: true, border: 0 }).data
      assert.deepEqual(unframed(drawQr(text, HUGE) ?? '', 4), expected)
    }),
    { numRuns: 20 },
  )
})

test('capitals and digits are packed as such', () => {
  // ISO/IEC 18004, table 7: alphanumeric characters in versions 5 to 8 at level L, whose sides are 17 + 4 × version.
  for (const [length, version] of [
    [154, 5],
    [155, 6],
    [195, 6],
    [196, 7],
    [224, 7],
    [279, 8],
  ] as const)
    assert.equal(unframed(drawQr(capitals(length), HUGE) ?? '', 4).length, 17 + 4 * version, `${length}`)
})

test('fits where it says so, with as wide a quiet zone as there is room for, and never without', () => {
  const side = unframed(drawQr(capitals(60), HUGE) ?? '', 4).length
  fc.assert(
    fc.property(fc.nat(60), fc.nat(40), (columns, rows) => {
      const drawing = drawQr(capitals(60), { columns, rows })
      const room = Math.min(columns, 2 * rows)
      const quiet = Math.min(4, Math.floor((room - side) / 2))
      if (quiet < 1) return assert.equal(drawing, undefined)
      const lines = drawing?.split('\n') ?? []
      assert.ok(lines.length > 0 && lines.length <= rows)
      for (const line of lines) assert.equal(line.length, side + 2 * quiet)
      unframed(drawing ?? '', quiet)
    }),
    { numRuns: 200 },
  )
})

test('a ticket fits a terminal of 80 × 24', () => {
  const key = (byte: number) => formatPeerId(new Uint8Array(32).fill(byte))
  const ticket = (addresses: string[], relay?: string) =>
    encodeTicket({
      peerId: key(1),
      addresses,
      ...(relay !== undefined && { relay: `${relay}/p2p/${key(2)}` }),
      inviteId: new Uint8Array(8).fill(3),
      secret: new Uint8Array(16).fill(4),
      expires: 2 ** 32 * 1000 - 1000,
    })
  const linesOf = (ticket: string, rows: number) => drawQr(ticket, { columns: 80, rows })?.split('\n').length
  const ip4 = '/ip4/192.168.178.27/tcp/4001'
  const ip6 = '/ip6/2001:db8:1:2:3:4:5:6/tcp/4001'
  // With a line to spare for the prompt below.
  assert.equal(linesOf(ticket([ip4, ip4, ip6]), 23), 23)
  assert.equal(linesOf(ticket([], '/ip4/198.51.100.7/tcp/4001'), 23), 23)
  // Without.
  assert.equal(linesOf(ticket([ip4], '/dns4/relay.example.org/tcp/4001'), 24), 24)
  assert.equal(linesOf(ticket([ip4], '/dns4/relay.example.org/tcp/4001'), 23), undefined)
})

test('more than the largest code holds is not drawn', () => {
  assert.notEqual(drawQr(capitals(4296), HUGE), undefined)
  assert.equal(drawQr(capitals(4297), HUGE), undefined)
})

const GOLDEN = [
  '█▀▀▀▀▀▀▀█▀▀██▀█▀▀▀▀▀▀▀█',
  '█ █▀▀▀█ █ █▄█▀█ █▀▀▀█ █',
  '█ █   █ ██▄▀  █ █   █ █',
  '█ ▀▀▀▀▀ █ █ ▄ █ ▀▀▀▀▀ █',
  '███▀▀▀█▀█ █▄▀█▀▀▀██▀▀▀█',
  '█ ▀█ ▄█▀██▄▄ █ ▄▄▀▀▀ ▀█',
  '█ ▀▀▀▄ ▀█ █▀ █▀▄▄ ▀██ █',
  '█▀▀▀▀▀▀▀█▄    █  █▀ █▄█',
  '█ █▀▀▀█ █▀▀  ▀▀█ █▀ ▀██',
  '█ █   █ █ █▀██▀ █▀▄ ███',
  '█ ▀▀▀▀▀ ███ ██▄▄ ▀▄██▄█',
  '███████████████████████',
].join('\n')
