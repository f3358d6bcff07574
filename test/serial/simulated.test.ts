import assert from 'node:assert/strict'
import { on, once } from 'node:events'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { nmeaSentences } from '../../src/serial/gps.ts'
import type { SerialPort } from '../../src/serial/port.ts'
import { simulatedPort } from '../../src/serial/simulated.ts'

const NOON = Date.UTC(2026, 10, 22, 12, 0, 0)

test('a sentence for sentence example', () => {
  assert.deepEqual(nmeaSentences(NOON), [
    '$GPGGA,120000.00,5354.2695,N,00838.4000,E,1,08,0.9,3.2,M,46.9,M,,*6C\r\n',
    '$GPGSA,A,3,02,05,07,13,15,18,21,30,,,,,1.6,0.9,1.3*31\r\n',
    '$GPGSV,3,1,10,02,61,292,44,05,38,201,41,07,22,055,36,13,47,118,42*73\r\n',
    '$GPGSV,3,2,10,15,71,160,46,18,15,250,33,21,29,310,38,30,54,078,43*7F\r\n',
    '$GPGSV,3,3,10,26,06,019,22,29,09,342,25*72\r\n',
    '$GPRMC,120000.00,A,5354.2695,N,00838.4000,E,10.2,90.0,221126,,,A*5B\r\n',
  ])
})

test('every sentence of every moment is well formed', () => {
  fc.assert(
    fc.property(fc.nat(4_000_000_000_000), (timeMs) => {
      for (const sentence of nmeaSentences(timeMs)) {
        assert.ok(sentence.length <= 82, `${sentence.length} bytes`)
        const [, body, checksum] = /^\$(GP[A-Z]{3},[ -~]*)\*([0-9A-F]{2})\r\n$/.exec(sentence) ?? []
        assert.ok(body && checksum, sentence)
        let sum = 0
        for (const byte of Buffer.from(body)) sum ^= byte
        assert.equal(sum, Number.parseInt(checksum, 16))
        const [minutes] = body.match(/(?<=,\d{2,3})\d\d\.\d{4}/) ?? ['0']
        assert.ok(Number(minutes) < 60, sentence)
      }
    }),
  )
})

test('the boat goes on as fast as it says, in the direction it says', () => {
  fc.assert(
    fc.property(fc.nat(1_000_000_000_000), (timeMs) => {
      const [from, to] = [position(timeMs), position(timeMs + 10_000)]
      const north = (to.latitude - from.latitude) * 111_320
      const east = (to.longitude - from.longitude) * 111_320 * Math.cos((from.latitude * Math.PI) / 180)
      const metres = from.knots * (1852 / 3600) * 10
      assert.ok(Math.abs(Math.hypot(north, east) - metres) < 2, `${Math.hypot(north, east)} of ${metres} m`)
      const heading = (Math.atan2(east, north) * 180) / Math.PI
      // It turns by six degrees in ten seconds, so the way it makes lies three beside the course.
      const beside = ((heading - from.course + 540) % 360) - 180
      assert.ok(Math.abs(beside) < 6, `${beside} degrees beside the course`)
    }),
  )
})

test('a GPS speaks once a second, on the second', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: NOON - 1300 })
  await using port = await simulatedPort('gps').open({})
  t.mock.timers.tick(1300)
  assert.equal(String(port.read()), nmeaSentences(NOON).join(''))
  t.mock.timers.tick(999)
  assert.equal(port.read(), null)
  t.mock.timers.tick(1)
  assert.equal(String(port.read()), nmeaSentences(NOON + 1000).join(''))
})

test('a GPS may speak more often', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: NOON })
  await using port = await simulatedPort('gps?hz=5').open({})
  tickInSteps(t, 2000)
  const fixes = String(port.read()).match(/GPRMC,[\d.]+/g)
  assert.deepEqual(fixes?.slice(-3), ['GPRMC,120001.60', 'GPRMC,120001.80', 'GPRMC,120002.00'])
  assert.equal(fixes?.length, 10)
})

test('a GPS that nobody reads loses words and says so, and fills no memory', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: NOON })
  await using port = await simulatedPort('gps?hz=10').open({})
  let overruns = 0
  port.on('lineErrors', (errors) => {
    overruns += errors.overrun
  })
  tickInSteps(t, 60_000)
  assert.ok(port.readableLength < 8192, `${port.readableLength} bytes are kept`)
  assert.ok(overruns > 500, `${overruns} overruns`)
})

test('a closed GPS is silent', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: NOON })
  const port = await simulatedPort('gps').open({})
  // Closed in the middle of what it says, when its next time to speak must not be set any more.
  port.once('data', () => port.destroy())
  await new Promise(setImmediate)
  t.mock.timers.tick(1000)
  await once(port, 'close')
  tickInSteps(t, 5000)
  assert.equal(port.readableLength, 0)
})

test('the loop plug: TxD to RxD, RTS to CTS, DTR to DSR and DCD, break to break', async () => {
  await using port = await simulatedPort('echo').open({})
  assert.deepEqual(port.lines, { cts: true, dsr: true, ri: false, dcd: true })
  await port.setLines({ rts: false })
  assert.deepEqual(port.lines, { cts: false, dsr: true, ri: false, dcd: true })
  await port.setLines({ dtr: false, rts: true })
  assert.deepEqual(port.lines, { cts: true, dsr: false, ri: false, dcd: false })

  const errors = once(port, 'lineErrors')
  await port.setBreak(true)
  assert.deepEqual(await errors, [{ framing: 0, parity: 0, overrun: 0, break: 1 }])
  await port.setBreak(false)

  const bytes = Uint8Array.from({ length: 300_000 }, (_, k) => (k * 7) % 256)
  port.write(bytes)
  assert.deepEqual(await read(port, bytes.length), Buffer.from(bytes))
})

test('a simulated device is open once at a time', async () => {
  const source = simulatedPort('echo')
  assert.equal(await source.present(), true)
  const port = await source.open({ settings: { baudRate: 4800 } })
  assert.equal(port.settings.baudRate, 4800)
  await assert.rejects(source.open({}), { code: 'ERR_PORT_BUSY', message: 'simulated:echo is already open.' })
  await port[Symbol.asyncDispose]()
  await using again = await source.open({})
  assert.equal(again.settings.baudRate, 9600)
})

test('opening stops when it is asked to', async () => {
  const source = simulatedPort('echo')
  const reason = new Error('not any more')
  await assert.rejects(source.open({ signal: AbortSignal.abort(reason) }), (error) => error === reason)
  await using port = await source.open({})
  assert.equal(port.state, 'open')
})

for (const kind of [
  '',
  'toaster',
  'gps/2',
  'gps?hz=0',
  'gps?hz=11',
  'gps?hz=x',
  'null-modem',
  'null-modem/desk',
  'null-modem/desk/c',
]) {
  test(`there is no simulated:${kind}`, () => {
    assert.throws(() => simulatedPort(kind), { code: 'ERR_USAGE' })
  })
}

/** The clock of node:test jumps to the end of a tick before it runs timers: those set on the way would come too late. */
function tickInSteps(t: TestContext, ms: number): void {
  for (let passed = 0; passed < ms; passed += 10) t.mock.timers.tick(10)
}

function position(timeMs: number) {
  const fields = nmeaSentences(timeMs).at(-1)?.split(',') ?? []
  const degrees = (text = '', digits: number) =>
    Number(text.slice(0, digits)) + Number(text.slice(digits)) / 60
  return {
    latitude: degrees(fields[3], 2),
    longitude: degrees(fields[5], 3),
    knots: Number(fields[7]),
    course: Number(fields[8]),
  }
}

async function read(port: SerialPort, lengthBytes: number): Promise<Buffer> {
  const chunks: Buffer[] = []
  let missing = lengthBytes
  for await (const [chunk] of on(port, 'data')) {
    chunks.push(chunk)
    missing -= chunk.length
    if (missing <= 0) break
  }
  return Buffer.concat(chunks)
}
