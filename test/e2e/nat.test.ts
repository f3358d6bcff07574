import assert from 'node:assert/strict'
import { test } from 'node:test'
import { cross } from '../support/nat-cell.ts'
import { NAT_CELLS } from '../support/nat-cells.ts'
import { whyNoNatLab } from '../support/nat-lab.ts'

const DELAY_MS = 20
/** One of each kind; all of them with `FARPORT_NAT=all`. The figures are `npm run bench:nat`'s. */
const USUAL = [
  'portrestricted × portrestricted',
  'portrestricted × symmetric',
  'portrestricted: both on one LAN',
]
const cells =
  process.env.FARPORT_NAT === 'all' ? NAT_CELLS : NAT_CELLS.filter(({ name }) => USUAL.includes(name))

for (const cell of cells) {
  const { name, options, expected } = cell
  test(`${name}: ${expected}`, { skip: whyNoNatLab() ?? false, timeout: 60_000 }, async () => {
    const { firstByteMs, directMs, method, reason } = await cross(cell, DELAY_MS)
    assert.ok(firstByteMs > 0)
    assert.equal(directMs === undefined ? 'relayed' : 'direct', expected, reason)
    if (options.client === 'same-lan') assert.equal(method, 'dial')
    if (name === USUAL[0]) assert.equal(method, 'simultaneous open')
  })
}
