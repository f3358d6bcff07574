import assert from 'node:assert/strict'
import { randomBytes, randomInt } from 'node:crypto'
import { once } from 'node:events'
import type { Duplex, Readable, Writable } from 'node:stream'
import { type TestContext, test } from 'node:test'
import { setTimeout as delay, setImmediate as immediate } from 'node:timers/promises'
import type { InputLines, LineChanges, LineErrors, OutputLines, SerialPort } from '../../src/serial/port.ts'
import type { SerialSettings } from '../../src/serial/settings.ts'

/** The far side of a port, as the suite sees it: what a person with a device in hand could do and observe. */
export interface Device {
  /** Reads what the port sends, writes what it receives. Whoever does not read it holds the port up. */
  readonly stream: Duplex
  /** Moves input lines of the port. */
  force(lines: Partial<InputLines>): void | Promise<void>
  /** Every state of DTR and RTS so far, oldest first; the last one is in force. */
  readonly outputs: readonly Readonly<OutputLines>[]
  /** Every beginning (true) and end of a break so far. */
  readonly breaks: readonly boolean[]
  sendBreak(): void | Promise<void>
  /** The settings the medium shows from the far side. */
  settings(): SerialSettings
  unplug(): void | Promise<void>
  replug(): void | Promise<void>
}

/** A port and its far side, made afresh for each test. */
export interface Rig extends AsyncDisposable {
  readonly port: SerialPort
  readonly device: Device
}

/**
 * What a rig's medium can do. Left out means all of it: a flag is set only for what the medium physically lacks, never for
 * what the implementation does not do.
 */
export interface Medium {
  /** Words of the settings that the medium has. For others the port must say that they are not in force. */
  settings?: { [K in keyof SerialSettings]?: readonly SerialSettings[K][] }
  /** Words that can be seen from the far side by `device.settings()`. */
  observableSettings?: readonly (keyof SerialSettings)[]
  /** RTS/CTS is one switch for both directions, as in termios: setting one sets the other. */
  coupledFlow?: boolean
  /** Changing the speed throws away what is on its way: so the serialport package does it, and only that one may. */
  speedChangeFlushes?: boolean
  /** DTR and RTS reach the device. */
  outputLines?: boolean
  /** The input lines the device can move, in groups that move together. */
  inputLines?: readonly (readonly (keyof InputLines)[])[]
  /** A break the port sends reaches the device. */
  breakOut?: boolean
  /** A break the device sends reaches the port. */
  breakIn?: boolean
  /** The port can be unplugged and plugged in again. */
  unplug?: boolean
  /** What the medium itself may hold of what the port sends, where it is much: TCP has megabytes in the kernel. */
  holdsBytes?: number
}

const WORDS = {
  baudRate: [300, 1200, 9600, 57600, 115200, 250000, 1000000, 12345],
  dataBits: [5, 6, 7, 8],
  parity: ['none', 'odd', 'even', 'mark', 'space'],
  stopBits: [1, 1.5, 2],
  outputFlow: ['none', 'xonxoff', 'rtscts', 'dcd', 'dsr'],
  inputFlow: ['none', 'xonxoff', 'rtscts', 'dtr'],
} as const satisfies { [K in keyof SerialSettings]: readonly SerialSettings[K][] }

const WORD_NAMES = Object.keys(WORDS) as (keyof SerialSettings)[]
const INPUT_LINES = [['cts'], ['dsr'], ['ri'], ['dcd']] as const satisfies (keyof InputLines)[][]

/** More than any port may buffer: a write of this size must wait for a device that does not read. */
const TOO_MUCH_BYTES = 2 * 1024 * 1024
/** A port that nobody reads keeps no more than this. */
const MAX_UNREAD_BYTES = 512 * 1024
const TIMEOUT_MS = 10_000

/** Registers the tests that every SerialPort must pass: `src/serial/port.ts` in code. */
export function serialPortCompliance(name: string, make: () => Promise<Rig>, medium: Medium = {}): void {
  const inputLines = medium.inputLines ?? INPUT_LINES
  const tooMuchBytes = TOO_MUCH_BYTES + (medium.holdsBytes ?? 0)

  function check(title: string, body: (rig: Rig, t: TestContext) => Promise<void>, lacking?: string | false) {
    test(`${name}: ${title}`, { timeout: TIMEOUT_MS, skip: lacking || false }, async (t) => {
      await using rig = await make()
      await body(rig, t)
    })
  }

  function mediumHas(word: keyof SerialSettings, value: unknown): boolean {
    const words: readonly unknown[] = medium.settings?.[word] ?? WORDS[word]
    return words.includes(value)
  }

  /** Has the port write more than fits while the device does not read, and comes back once it is stuck. */
  async function stick({ port, device }: Rig) {
    const bytes = randomBytes(tooMuchBytes)
    const write = writing(port, bytes)
    // What the device says now arrives after the port had its chance to send.
    device.stream.write('are you stuck?')
    assert.equal(String(await take(port, 14)), 'are you stuck?', 'reads go on while a write is blocked')
    assert.equal(write.state, 'waiting', `${tooMuchBytes} bytes went out though nobody read them`)
    return { bytes, write }
  }

  check('starts open, with a description and every setting', async ({ port }) => {
    assert.equal(port.state, 'open')
    assert.notEqual(port.description.path, '')
    assert.equal(typeof port.description.modemLines, 'boolean')
    for (const word of WORD_NAMES) {
      const words: readonly unknown[] = WORDS[word]
      if (word === 'baudRate') assert.ok(port.settings.baudRate > 0)
      else assert.ok(words.includes(port.settings[word]), `${word} is ${port.settings[word]}`)
    }
  })

  // ---- bytes

  check('carries every byte value both ways', async ({ port, device }) => {
    const all = Uint8Array.from({ length: 256 }, (_, value) => value)
    port.write(all)
    assert.deepEqual(await take(device.stream, 256), Buffer.from(all))
    device.stream.write(all)
    assert.deepEqual(await take(port, 256), Buffer.from(all))
  })

  check('carries bulk both ways at once, however it is cut', async ({ port, device }) => {
    const out = randomBytes(256 * 1024)
    const back = randomBytes(256 * 1024)
    const [, , seen, read] = await Promise.all([
      writeInPieces(port, out),
      writeInPieces(device.stream, back),
      take(device.stream, out.length),
      take(port, back.length),
    ])
    assertSame(seen, out)
    assertSame(read, back)
  })

  check('keeps what nobody reads within bounds, and loses none of it', async ({ port, device }) => {
    const bytes = randomBytes(tooMuchBytes)
    const write = writing(device.stream, bytes)
    port.write('x')
    assert.equal(String(await take(device.stream, 1)), 'x', 'writes go on while nobody reads')
    assert.ok(port.readableLength <= MAX_UNREAD_BYTES, `${port.readableLength} bytes wait to be read`)
    assertSame(await take(port, bytes.length), bytes)
    await write.done
  })

  check('a blocked write neither stops reads nor loses a byte', async (rig) => {
    const { bytes, write } = await stick(rig)
    rig.device.stream.write(bytes.subarray(0, 1000))
    assertSame(await take(rig.port, 1000), bytes.subarray(0, 1000))
    assert.equal(write.state, 'waiting')
    assertSame(await take(rig.device.stream, bytes.length), bytes)
    await write.done
  })

  // ---- settings

  check(
    'configure changes what is named, leaves the rest, and answers what is in force',
    async ({ port }) => {
      const wanted: SerialSettings = {
        baudRate: 57600,
        dataBits: 7,
        parity: 'odd',
        stopBits: 2,
        outputFlow: 'xonxoff',
        inputFlow: 'xonxoff',
      }
      for (const word of WORD_NAMES) {
        if (!mediumHas(word, wanted[word])) continue
        const before = { ...port.settings }
        const answer = await port.configure({ [word]: wanted[word] })
        assert.deepEqual(answer, { ...before, [word]: wanted[word] })
        assert.deepEqual(port.settings, answer)
        assert.deepEqual(await port.configure({}), answer)
      }
    },
  )

  for (const word of WORD_NAMES) {
    check(`configure answers honestly for every ${word}`, async ({ port, device }) => {
      for (const value of WORDS[word]) {
        const before = { ...port.settings }
        const answer = await port.configure({ [word]: value })
        const expected = { ...before, [word]: value }
        if (medium.coupledFlow && word === 'outputFlow') expected.inputFlow = answer.inputFlow
        if (medium.coupledFlow && word === 'inputFlow') expected.outputFlow = answer.outputFlow
        if (mediumHas(word, value)) assert.deepEqual(answer, expected)
        else assert.notEqual(answer[word], value, `the medium has no ${word} ${value}`)
        assert.deepEqual(port.settings, answer)
        if (medium.observableSettings?.includes(word) ?? true)
          await until(
            () => device.settings()[word] === answer[word],
            `the device sees ${word} ${answer[word]}`,
          )
      }
    })
  }

  check('several settings change in one step', async ({ port }) => {
    const wanted = { baudRate: 57600, dataBits: 7, parity: 'even', stopBits: 2 } as const
    const before = { ...port.settings }
    const answer = await port.configure(wanted)
    for (const word of WORD_NAMES) {
      const value = { ...before, ...wanted }[word]
      assert.equal(answer[word] === value, mediumHas(word, value), `${word} is ${answer[word]}`)
    }
  })

  check('nonsense is not taken over', async ({ port }) => {
    for (const baudRate of [0, -1, Number.NaN, 1.5, 2 ** 32]) {
      const before = { ...port.settings }
      assert.deepEqual(await port.configure({ baudRate }), before)
    }
  })

  check(
    'settings may change in the middle of a transfer',
    async ({ port, device }) => {
      const out = randomBytes(128 * 1024)
      const back = randomBytes(128 * 1024)
      let changes = 0
      const transfer = Promise.all([
        writeInPieces(port, out),
        writeInPieces(device.stream, back),
        take(device.stream, out.length),
        take(port, back.length),
      ]).finally(() => {
        changes = Number.POSITIVE_INFINITY
      })
      for (; changes < 20; changes++) {
        await port.configure({
          baudRate: changes % 2 === 0 ? 115200 : 57600,
          stopBits: changes % 2 === 0 ? 2 : 1,
        })
      }
      const [, , seen, read] = await transfer
      assertSame(seen, out)
      assertSame(read, back)
    },
    medium.speedChangeFlushes && 'a change of speed throws away bytes',
  )

  check('our own changes are not reported as somebody else’s', async ({ port, device }) => {
    let reports = 0
    port.on('settings', () => reports++)
    await port.configure({ baudRate: 1200 })
    await port.configure({ stopBits: 2 })
    device.stream.write('x')
    await take(port, 1)
    assert.equal(reports, 0)
  })

  // ---- lines

  check('setLines changes what is named and answers with the state in force', async ({ port }) => {
    assert.deepEqual(await port.setLines({ dtr: false }), { ...port.outputs, dtr: false })
    const rts = port.outputs.rts
    assert.deepEqual(await port.setLines({ dtr: true }), { dtr: true, rts })
    assert.deepEqual(await port.setLines({ dtr: false, rts: !rts }), { dtr: false, rts: !rts })
    assert.deepEqual(port.outputs, { dtr: false, rts: !rts })
    assert.deepEqual(await port.setLines({}), { dtr: false, rts: !rts })
  })

  check(
    'lines named together change together',
    async ({ port, device }) => {
      await port.setLines({ dtr: false, rts: false })
      await until(() => same(device.outputs.at(-1), { dtr: false, rts: false }), 'both lines are low')
      const from = device.outputs.length
      await port.setLines({ dtr: true, rts: true })
      await until(() => same(device.outputs.at(-1), { dtr: true, rts: true }), 'both lines are high')
      await port.setLines({ dtr: false, rts: false })
      await until(() => same(device.outputs.at(-1), { dtr: false, rts: false }), 'both lines are low again')
      for (const { dtr, rts } of device.outputs.slice(from))
        assert.equal(dtr, rts, 'one line moved before the other')
    },
    medium.outputLines === false && 'the medium has no DTR and RTS',
  )

  check(
    'configure moves no line',
    async ({ port, device }) => {
      await port.setLines({ dtr: true, rts: false })
      await until(() => same(device.outputs.at(-1), { dtr: true, rts: false }), 'the lines are set')
      const from = device.outputs.length
      await port.configure({ baudRate: 1200 })
      await port.configure({ baudRate: 115200, parity: 'even' })
      await port.setLines({ dtr: false })
      await until(() => same(device.outputs.at(-1), { dtr: false, rts: false }), 'DTR is low')
      assert.equal(device.outputs.length, from + 1)
    },
    medium.outputLines === false && 'the medium has no DTR and RTS',
  )

  for (const group of inputLines) {
    const all = (on: boolean) => Object.fromEntries(group.map((line) => [line, on])) as Partial<InputLines>

    check(`${group.join(' and ')} arrive as an event with the new state`, async ({ port, device }) => {
      await device.force(all(false))
      await until(() => group.every((line) => !port.lines[line]), 'low')
      for (const on of [true, false]) {
        const event = once(port, 'lines') as Promise<[InputLines, LineChanges]>
        await device.force(all(on))
        const [lines, changes] = await event
        for (const line of group) {
          assert.equal(lines[line], on)
          assert.equal(changes[line], 1)
        }
        assert.deepEqual(port.lines, lines)
      }
    })

    check(`a short pulse on ${group.join(' and ')} is counted`, async ({ port, device }) => {
      await device.force(all(false))
      await until(() => group.every((line) => !port.lines[line]), 'low')
      const edges: LineChanges = { cts: 0, dsr: 0, ri: 0, dcd: 0 }
      port.on('lines', (_lines, changes) => {
        for (const line of ['cts', 'dsr', 'ri', 'dcd'] as const) edges[line] += changes[line]
      })
      await Promise.all([device.force(all(true)), device.force(all(false))])
      await until(() => group.every((line) => edges[line] >= 2), 'two edges on each line')
      for (const line of group) assert.equal(port.lines[line], false)
      const expected = {
        cts: 0,
        dsr: 0,
        ri: 0,
        dcd: 0,
        ...Object.fromEntries(group.map((line) => [line, 2])),
      }
      assert.deepEqual(edges, expected)
    })
  }

  check(
    'output waits while the flow control line is low',
    async ({ port, device }) => {
      await device.force({ cts: false })
      await until(() => !port.lines.cts, 'CTS is low')
      await port.configure({ outputFlow: 'rtscts' })
      const write = writing(port, Buffer.from('waiting'))
      device.stream.write('on you')
      assert.equal(String(await take(port, 6)), 'on you')
      assert.equal(device.stream.readableLength, 0)
      await device.force({ cts: true })
      assert.equal(String(await take(device.stream, 7)), 'waiting')
      await write.done
    },
    !inputLines.some((group) => group.includes('cts')) && 'the medium has no CTS',
  )

  // ---- break

  check('setBreak resolves, and the port works on', async ({ port, device }) => {
    await port.setBreak(true)
    await port.setBreak(true)
    await port.setBreak(false)
    await port.setBreak(false)
    port.write('x')
    const seen = await take(device.stream, 1)
    // A break may be read as a zero byte where the far side does not know breaks.
    assert.ok(seen.includes('x') || seen[0] === 0)
  })

  check(
    'a break reaches the device and ends there',
    async ({ port, device }) => {
      await port.setBreak(true)
      await until(() => device.breaks.at(-1) === true, 'the break has begun')
      await port.setBreak(false)
      await until(() => device.breaks.at(-1) === false, 'the break is over')
      assert.deepEqual(device.breaks.slice(-2), [true, false])
    },
    medium.breakOut === false && 'the medium carries no break to the device',
  )

  check(
    'a break from the device is a line error of that kind',
    async ({ port, device }) => {
      const event = once(port, 'lineErrors') as Promise<[LineErrors]>
      await device.sendBreak()
      const [errors] = await event
      assert.ok(errors.break >= 1)
    },
    medium.breakIn === false && 'the medium carries no break from the device',
  )

  // ---- purge

  for (const what of ['rx', 'both'] as const) {
    check(`purge(${what}) throws away what has not been read`, async ({ port, device }) => {
      device.stream.write('old old old')
      await arrival(port)
      await port.purge(what)
      device.stream.write('new')
      assert.equal(String(await take(port, 3)), 'new')
    })

    check(`purge(${what}) keeps what it throws away from a paused listener`, async ({ port, device }) => {
      device.stream.write('a')
      const heard: Buffer[] = []
      port.on('data', (chunk: Buffer) => {
        heard.push(chunk)
        port.pause()
      })
      await until(() => heard.length > 0, 'the listener has heard the first byte')
      device.stream.write('old old old')
      // The port has no way to tell that it holds bytes for a paused listener; its own answer comes after they did.
      await roundTrip(port, device)
      await port.purge(what)
      device.stream.write('z')
      port.resume()
      await until(() => {
        port.resume()
        return String(Buffer.concat(heard)).endsWith('z')
      }, 'the byte after the purge')
      assert.equal(String(Buffer.concat(heard)), 'az')
    })
  }

  check('purge(rx) leaves what is on its way out', async (rig) => {
    const { bytes, write } = await stick(rig)
    await rig.port.purge('rx')
    assert.equal(write.state, 'waiting')
    assertSame(await take(rig.device.stream, bytes.length), bytes)
    await write.done
  })

  for (const what of ['tx', 'both'] as const) {
    check(`purge(${what}) releases blocked writes and throws away the rest of them`, async (rig) => {
      const { port, device } = rig
      const { bytes, write } = await stick(rig)
      const behind = writing(port, Buffer.from('waits behind it'))
      await port.purge(what)
      await Promise.all([write.done, behind.done])
      const marker = Buffer.from('---after the purge---')
      port.write(marker)
      const seen = await takeUntil(device.stream, marker)
      assert.ok(seen.length < bytes.length, 'nothing was thrown away')
      assertSame(seen, bytes.subarray(0, seen.length))
    })
  }

  check('purge(tx) leaves what has arrived, wherever it waits', async ({ port, device }) => {
    const bytes = randomBytes(tooMuchBytes)
    const write = writing(device.stream, bytes)
    await arrival(port)
    await roundTrip(port, device)
    await port.purge('tx')
    assertSame(await take(port, bytes.length), bytes)
    await write.done
  })

  // ---- drain

  check('drain resolves at once when nothing is on its way', async ({ port, device }) => {
    await port.drain()
    port.write('x')
    await take(device.stream, 1)
    await port.drain()
  })

  check('drain waits for a device that does not read', async (rig) => {
    const { port, device } = rig
    const { bytes, write } = await stick(rig)
    const drain = settling(port.drain())
    device.stream.write('still stuck?')
    await take(port, 12)
    assert.equal(drain.state, 'waiting')
    assertSame(await take(device.stream, bytes.length), bytes)
    await drain.done
    assert.equal(write.state, 'done')
  })

  check('drain waits for all that was written before it, and for no more', async (rig) => {
    const { port, device } = rig
    const { bytes, write } = await stick(rig)
    const first = settling(port.drain())
    const more = writing(port, bytes)
    const both = settling(port.drain())
    assertSame(await take(device.stream, bytes.length), bytes)
    await first.done
    assert.equal(write.state, 'done')
    assert.equal(both.state, 'waiting')
    assertSame(await take(device.stream, bytes.length), bytes)
    await both.done
    await more.done
  })

  check('drain rejects with the reason of its signal, and nothing else changes', async (rig) => {
    const { port, device } = rig
    const { bytes, write } = await stick(rig)
    const controller = new AbortController()
    const drain = port.drain({ signal: controller.signal })
    const reason = new Error('enough')
    controller.abort(reason)
    await assert.rejects(drain, (error) => error === reason)
    await assert.rejects(port.drain({ signal: controller.signal }), (error) => error === reason)
    assert.equal(write.state, 'waiting')
    assertSame(await take(device.stream, bytes.length), bytes)
    await write.done
  })

  check('a purge lets a waiting drain go', async (rig) => {
    await stick(rig)
    const drain = rig.port.drain()
    await rig.port.purge('tx')
    await drain
  })

  check('closing rejects a waiting drain', async (rig) => {
    const { write } = await stick(rig)
    const drain = rig.port.drain()
    rig.port.destroy()
    await assert.rejects(drain)
    await assert.rejects(write.done)
  })

  // ---- the end

  check('end() delivers what was written, then closes', async ({ port, device }) => {
    const bytes = randomBytes(tooMuchBytes)
    const closed = closing(port)
    port.end(bytes)
    assertSame(await take(device.stream, bytes.length), bytes)
    await closed
    assert.equal(port.destroyed, true)
  })

  check('destroy() fails a blocked write and closes', async (rig) => {
    const { write } = await stick(rig)
    const closed = closing(rig.port)
    rig.port.destroy()
    await assert.rejects(write.done)
    await closed
  })

  check('closes once, however often it is asked', async ({ port }) => {
    let closes = 0
    port.on('close', () => closes++)
    port.destroy()
    port.destroy()
    await port[Symbol.asyncDispose]()
    await port[Symbol.asyncDispose]()
    await immediate()
    assert.equal(closes, 1)
  })

  check('await using closes without an error', async ({ port }) => {
    port.on('error', (error) => assert.fail(error))
    let closes = 0
    port.on('close', () => closes++)
    {
      await using same = port
      assert.equal(same.destroyed, false)
    }
    assert.equal(closes, 1)
  })

  check('a closed port lets nobody wait', async ({ port }) => {
    await port[Symbol.asyncDispose]()
    await Promise.allSettled([
      port.configure({ baudRate: 1200 }),
      port.setLines({ dtr: true }),
      port.setBreak(true),
      port.purge('both'),
      port.drain(),
    ])
  })

  // ---- unplugged

  check(
    'waits for its device, and gives it back what it had',
    async ({ port, device }) => {
      const settings = await port.configure({ baudRate: 19200, stopBits: 2 })
      await port.setLines({ dtr: false, rts: true })
      const line = inputLines[0]?.[0]
      if (line) {
        await device.force({ [line]: true })
        await until(() => port.lines[line], `${line} is high`)
      }
      const away = once(port, 'state')
      await device.unplug()
      assert.deepEqual(await away, ['absent'])
      assert.equal(port.state, 'absent')
      assert.equal(port.destroyed, false)
      await until(() => Object.values(port.lines).every((on) => !on), 'every line is low')
      assert.deepEqual(await port.setLines({ dtr: true, rts: false }), { dtr: true, rts: false })

      const back = once(port, 'state')
      await device.replug()
      assert.deepEqual(await back, ['open'])
      assert.equal(port.state, 'open')
      assert.deepEqual(port.settings, settings)
      assert.deepEqual(port.outputs, { dtr: true, rts: false })
      if (medium.outputLines ?? true)
        await until(() => same(device.outputs.at(-1), { dtr: true, rts: false }), 'the lines are set')
      if (line) await until(() => port.lines[line], `${line} is high again`)
      port.write('hello again')
      assert.equal(String(await take(device.stream, 11)), 'hello again')
      device.stream.write('and you')
      assert.equal(String(await take(port, 7)), 'and you')
    },
    medium.unplug === false && 'the medium can’t be unplugged',
  )

  check(
    'closes while its device is away',
    async ({ port, device }) => {
      const away = once(port, 'state')
      await device.unplug()
      await away
      const write = writing(port, Buffer.from('too late'))
      write.done.catch(() => {})
      await port[Symbol.asyncDispose]()
      await until(() => write.state !== 'waiting', 'the write has come to an end')
    },
    medium.unplug === false && 'the medium can’t be unplugged',
  )
}

/** Reads exactly so many bytes and leaves the rest in the stream. */
async function take(stream: Readable, lengthBytes: number): Promise<Buffer> {
  const chunks: Buffer[] = []
  for (let missing = lengthBytes; missing > 0; ) {
    const chunk: Buffer | null = stream.read(Math.min(missing, stream.readableLength, 16 * 1024))
    if (chunk === null || chunk.length === 0) {
      await arrival(stream, () => `${lengthBytes - missing} of ${lengthBytes} bytes had come`)
      continue
    }
    chunks.push(chunk)
    missing -= chunk.length
  }
  return Buffer.concat(chunks)
}

/** Reads up to and with the marker; answers what came before it. */
async function takeUntil(stream: Readable, marker: Uint8Array): Promise<Buffer> {
  let seen = Buffer.alloc(0)
  for (;;) {
    await arrival(stream, () => `no marker in ${seen.length} bytes`)
    seen = Buffer.concat([seen, await take(stream, Math.min(stream.readableLength, 16 * 1024))])
    const at = seen.indexOf(marker)
    if (at !== -1) return seen.subarray(0, at)
  }
}

/** Waits until there is something to read, and does not read it. */
async function arrival(stream: Readable, progress = () => 'nothing had come'): Promise<void> {
  if (stream.readableLength > 0) return
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const gone = () => reject(new assert.AssertionError({ message: `the stream ended when ${progress()}` }))
  const tooLate = setTimeout(() => {
    reject(new assert.AssertionError({ message: `no more bytes: ${progress()}` }))
  }, TIMEOUT_MS / 2)
  stream.once('readable', resolve).once('close', gone).once('error', reject)
  stream.read(0)
  try {
    if (stream.readableLength === 0) await promise
  } finally {
    clearTimeout(tooLate)
    stream.off('readable', resolve).off('close', gone).off('error', reject)
  }
}

/** A byte there and one back. */
async function roundTrip(port: SerialPort, device: Device): Promise<void> {
  port.write('?')
  await take(device.stream, 1)
}

async function writeInPieces(stream: Writable, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const end = at + randomInt(1, 4000)
    const more = stream.write(bytes.subarray(at, end))
    at = end
    if (!more) await once(stream, 'drain')
  }
}

interface Settling {
  state: 'waiting' | 'done' | 'failed'
  readonly done: Promise<void>
}

function settling(promise: Promise<void>): Settling {
  const result: Settling = { state: 'waiting', done: promise }
  promise.then(
    () => {
      result.state = 'done'
    },
    () => {
      result.state = 'failed'
    },
  )
  return result
}

function writing(stream: Writable, bytes: Uint8Array): Settling {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  stream.write(bytes, (error) => (error ? reject(error) : resolve()))
  return settling(promise)
}

function closing(port: SerialPort): Promise<void> {
  return new Promise((resolve) => port.once('close', () => resolve()))
}

/** Waits for what no event announces. */
async function until(condition: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + TIMEOUT_MS / 2
  while (!condition()) {
    assert.ok(performance.now() < deadline, `never: ${what}`)
    await delay(1)
  }
}

function same(a: OutputLines | undefined, b: OutputLines): boolean {
  return a?.dtr === b.dtr && a.rts === b.rts
}

/** Like deepEqual, but does not print megabytes when it fails. */
function assertSame(actual: Uint8Array, expected: Uint8Array): void {
  const lengths = `${actual.length} bytes, expected ${expected.length}`
  if (Buffer.compare(actual, expected) === 0) return
  const at = actual.findIndex((byte, index) => byte !== expected[index])
  assert.fail(at === -1 ? lengths : `different from byte ${at} on (${lengths})`)
}
