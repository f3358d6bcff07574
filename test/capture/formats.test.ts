import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { CaptureError, type Piece } from '../../src/capture/format.ts'
import { CAPTURE_FORMATS, captureWriter, readCapture } from '../../src/capture/formats.ts'

const START_MS = Date.UTC(2026, 10, 23, 3, 40, 12) + 123.456

async function* inPieces(file: Buffer, cuts: readonly number[]): AsyncGenerator<Uint8Array> {
  for (let at = 0, i = 0; at < file.length; i++) {
    const end = at + (cuts[i % cuts.length] ?? file.length)
    yield file.subarray(at, end)
    at = end
  }
}

async function read(file: Buffer, cuts: readonly number[] = [file.length || 1]): Promise<Piece[]> {
  const pieces: Piece[] = []
  for await (const piece of readCapture(inPieces(file, cuts))) pieces.push(piece)
  return pieces
}

function bytesOf(pieces: readonly Piece[], direction: Piece['direction']): Buffer {
  return Buffer.concat(pieces.filter((piece) => piece.direction === direction).map(({ bytes }) => bytes))
}

const bytes = fc.oneof(
  fc.uint8Array({ minLength: 1, maxLength: 40 }),
  // What is, and what nearly is, UTF-8, and what stands for bytes that are not.
  fc.constantFrom('grüß', '€', '😀', '\uef80\uefff\uef7f', '\u{10ffff}').map((text) => Buffer.from(text)),
  fc
    .constantFrom('€', '😀', '\uefff')
    .chain((text) => fc.nat({ max: 2 }).map((n) => Buffer.from(text).subarray(0, n + 1))),
)
const pieces = fc.array(
  fc.record({
    afterMs: fc.integer({ min: 0, max: 5_000_000 }).map((us) => us / 1000),
    direction: fc.constantFrom('fromDevice' as const, 'toDevice' as const),
    bytes,
  }),
  { maxLength: 12 },
)

for (const format of CAPTURE_FORMATS) {
  test(`${format}: every byte comes back, in its direction and at its time, wherever the file is cut`, async () => {
    await fc.assert(
      fc.asyncProperty(
        pieces,
        fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 4 }),
        async (written, cuts) => {
          const writer = captureWriter(format, 'gps', START_MS)
          let atMs = START_MS
          const timed = written.map(({ afterMs, ...piece }) => {
            atMs += afterMs
            return { ...piece, atMs }
          })
          const file = Buffer.concat([
            writer.start(),
            ...timed.map((piece) => writer.piece(piece)),
            writer.lost(atMs, 17),
            writer.end(),
          ])
          const back = await read(file, cuts)
          for (const direction of ['fromDevice', 'toDevice'] as const)
            assert.deepEqual(bytesOf(back, direction), bytesOf(timed, direction))
          // A character that came in parts is as late as its last.
          const times = new Set(timed.map(({ atMs }) => Math.round(atMs * 1000)))
          if (format !== 'asciicast')
            for (const piece of back)
              assert.ok([-1, 0, 1].some((us) => times.has(Math.round(piece.atMs * 1000) + us)))
        },
      ),
    )
  })

  test(`${format}: a file that ends anywhere gives what is whole in it, and then says that it is cut`, async () => {
    const writer = captureWriter(format, 'gps', START_MS)
    const head = writer.start()
    const parts = ['$GPGGA,1\r\n', '$GPGGA,2\r\n'].map((text) =>
      writer.piece({ atMs: START_MS, direction: 'fromDevice', bytes: Buffer.from(text) }),
    )
    const file = Buffer.concat([head, ...parts])
    for (let length = 1; length < file.length; length++) {
      const got: Piece[] = []
      let error: unknown
      try {
        for await (const piece of readCapture(inPieces(file.subarray(0, length), [7]))) got.push(piece)
      } catch (thrown) {
        error = thrown
      }
      const whole = length >= head.length + (parts[0]?.length ?? 0)
      assert.equal(bytesOf(got, 'fromDevice').toString(), whole ? '$GPGGA,1\r\n' : '')
      // At the edge of a line or block nothing is missing but what was never written.
      const atEdge = length === head.length || length === head.length + (parts[0]?.length ?? 0)
      if (!atEdge) assert.ok(error instanceof CaptureError, `${length} of ${file.length}: ${String(error)}`)
    }
  })
}

test('whatever a file says, it is read or refused, and nothing else', async () => {
  const starts = CAPTURE_FORMATS.map((format) => captureWriter(format, 'x', START_MS).start())
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...starts, Buffer.alloc(0)),
      fc.oneof(
        fc.uint8Array({ maxLength: 200 }),
        fc.string().map((text) => Buffer.from(`${text}\n`)),
        fc.json().map((text) => Buffer.from(`${text}\n`)),
      ),
      async (start, rest) => {
        try {
          await read(Buffer.concat([start, rest]))
        } catch (error) {
          assert.ok(error instanceof CaptureError, String(error))
        }
      },
    ),
    { numRuns: 500 },
  )
})

test('a block or a line that claims to be endless is refused before it is kept', async () => {
  const block = Buffer.from(captureWriter('pcapng', 'x', START_MS).start())
  block.writeUInt32LE(0x7fff_fffc, 4)
  await assert.rejects(read(block), /a block of 2147483644 bytes/)
  const line = Buffer.concat([Buffer.from('#'), Buffer.alloc(2 * 1024 * 1024, 0x61)])
  await assert.rejects(read(line, [64 * 1024]), /a line of more than/)
})

test('a capture in hex reads as the page says', () => {
  const writer = captureWriter('hex', 'gps', START_MS)
  const text = [
    writer.start(),
    writer.piece({ atMs: START_MS, direction: 'fromDevice', bytes: Buffer.from('$GPGGA,1\r\n') }),
    writer.piece({ atMs: START_MS + 1000, direction: 'toDevice', bytes: Buffer.from([0, 255]) }),
    writer.lost(START_MS + 2000, 512),
  ].join('')
  assert.equal(
    text,
    `# farport capture of gps
2026-11-23T03:40:12.123456Z < 24 47 50 47 47 41 2c 31 0d 0a                    |$GPGGA,1..|
2026-11-23T03:40:13.123456Z > 00 ff                                            |..|
# 2026-11-23T03:40:14.123456Z lost 512 bytes
`,
  )
})
