import assert from 'node:assert/strict'
import { test } from 'node:test'
import { nullModemSources } from '../../src/serial/null-modem.ts'
import { closeBy, openBy } from '../../src/session/port-habits.ts'
import { until } from '../support/until.ts'

const NEVER = new AbortController().signal

test('a device is opened and closed as its owner wants it', async () => {
  const { a, b } = nullModemSources('habits')
  await using device = await b.open({})
  let heard = ''
  device.on('data', (bytes: Buffer) => {
    heard += bytes.toString('latin1')
  })
  const habits = {
    settings: { baudRate: 19_200, parity: 'even' as const },
    openLines: { dtr: true, rts: false },
    closeLines: { dtr: true, rts: true },
    openString: 'ATZ\r\xff',
    closeString: '+++',
  }
  const port = await openBy(habits, a, NEVER)
  assert.equal(port.settings.baudRate, 19_200)
  assert.equal(port.settings.parity, 'even')
  assert.deepEqual(port.outputs, { dtr: true, rts: false })
  await until('the first words', () => heard === 'ATZ\r\xff')
  // The other end of the cable sees DTR as DSR and RTS as CTS.
  assert.deepEqual([device.lines.dsr, device.lines.cts], [true, false])
  const seen: boolean[] = []
  device.on('lines', ({ cts }) => seen.push(cts))
  await closeBy(habits, port)
  await until('the last words', () => heard === 'ATZ\r\xff+++')
  assert.equal(seen[0], true)
  assert.equal(port.destroyed, true)
})

test('a device that is gone is closed without a word', async () => {
  const { a, b } = nullModemSources('gone')
  await using _ = await b.open({})
  const port = await openBy({}, a, NEVER)
  port.destroy()
  await closeBy({ closeString: 'bye', closeLines: { dtr: false } }, port)
  assert.equal(port.destroyed, true)
})
