import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FarportError } from '../../src/errors.ts'
import { nullModemSources } from '../../src/serial/null-modem.ts'
import type { PortSource } from '../../src/serial/port.ts'
import { type Right, rightsOn } from '../../src/trust/grants.ts'
import { SessionPair } from '../support/session-pair.ts'

/** A port's name is looked up among those that are shared: to whoever asks for it, it is no path, pattern or command. */
const NAMES = [
  '../gps',
  './gps',
  'gps/../gps',
  '/dev/ttyS0',
  '/dev/serial/by-id/usb-FTDI*',
  'link-to-gps',
  '*',
  'gp?',
  '{gps}',
  'gps\0',
  'gps\0.txt',
  'GPS',
  'ｇｐｓ',
  'gp\u0455',
  'gps\u200b',
  'gps ',
  '__proto__',
  'constructor',
  '\x1b]0;owned\x07\x1b[2J',
]

test('a name that is not shared opens nothing, and is answered like any other', async () => {
  const { a } = nullModemSources('test')
  let opened = 0
  const counted: PortSource = {
    ...a,
    present: () => a.present(),
    open: (...args) => {
      opened++
      return a.open(...args)
    },
  }
  await using pair = new SessionPair({ gps: counted })
  const answer = async (name: string): Promise<string> => {
    const error = await pair.open(name).then(
      () => assert.fail(`${JSON.stringify(name)} was opened`),
      (thrown: unknown) => thrown,
    )
    assert.ok(error instanceof FarportError, String(error))
    assert.doesNotMatch(error.message, /[\p{Cc}\p{Cf}]/u)
    return error.code
  }
  for (const name of NAMES) assert.equal(await answer(name), 'ERR_NO_SUCH_PORT', JSON.stringify(name))
  pair.rights = new Set<Right>()
  for (const name of [...NAMES, 'gps', 'unheard-of'])
    assert.equal(await answer(name), 'ERR_NOT_GRANTED', JSON.stringify(name))
  assert.equal(opened, 0)
})

test('a grant of one port is a grant of nothing that looks like it', () => {
  for (const name of NAMES)
    assert.equal(rightsOn({ ports: ['gps'], may: ['use'] }, name, 0).size, 0, JSON.stringify(name))
})
