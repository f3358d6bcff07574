import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { FarportError } from '../../src/errors.ts'
import { describesTicketOrCode, newCode, parseCode } from '../../src/trust/code.ts'
import { formatPeerId } from '../../src/trust/peer-id.ts'
import { encodeTicket } from '../../src/trust/ticket.ts'
import { nearestWords, WORDS, wordFor } from '../../src/trust/words.ts'

/** fuzz.test.ts has the millions. */
const numRuns = 300

const read = (text: string) => {
  const { nameplate, secret } = parseCode(text)
  return [nameplate, Buffer.from(secret).toString('ascii')]
}

function refusalOf(text: string): string {
  try {
    parseCode(text)
  } catch (error) {
    assert.ok(error instanceof FarportError && error.code === 'ERR_USAGE', String(error))
    return error.message
  }
  return 'accepted'
}

test('the words are what the typing help counts on', () => {
  assert.equal(WORDS.length, 2048)
  for (const word of WORDS) assert.match(word, /^[a-z]{3,8}$/)
  assert.equal(new Set(WORDS.map((word) => word.slice(0, 4))).size, 2048)
  // No word is the beginning of another one that its first four letters would stand for.
  for (const word of WORDS) assert.equal(wordFor(word), word)
})

test('a new code is drawn from all nameplates and words, each as likely as the draw', () => {
  const drawn = (numbers: number[]) => {
    const limits: number[] = []
    const code = newCode((limit) => {
      limits.push(limit)
      return numbers[limits.length - 1] ?? 0
    })
    assert.deepEqual(limits, [900, 2048, 2048, 2048])
    return code
  }
  assert.deepEqual(drawn([634, 1064, 1084, 383]), {
    nameplate: '734',
    words: ['lunar', 'maple', 'copper'],
    text: '734-lunar-maple-copper',
    secret: Uint8Array.from(Buffer.from('lunar-maple-copper')),
  })
  const nameplates = Array.from({ length: 900 }, (_, i) => drawn([i, 0, 0, 0]).nameplate)
  assert.deepEqual([new Set(nameplates).size, nameplates[0], nameplates.at(-1)], [900, '100', '999'])
  for (const place of [1, 2, 3]) {
    const words = WORDS.map((_, i) => drawn([0, 0, 0, 0].with(place, i)).words[place - 1])
    assert.deepEqual(words, WORDS)
  }
})

test('without a source of its own it draws from the system, and never the same twice', () => {
  const codes = Array.from({ length: 20 }, () => newCode())
  assert.equal(new Set(codes.map(({ text }) => text)).size, 20)
  for (const { text, nameplate, secret } of codes) assert.deepEqual(parseCode(text), { nameplate, secret })
})

test('the secret shares no memory with anything else, so that it can be zeroed', () => {
  for (const { secret } of [newCode(), parseCode('734-lunar-maple-copper')])
    assert.equal(secret.buffer.byteLength, secret.length)
})

const anyWord = fc.constantFrom(...WORDS)
const separator = fc.constantFrom(' ', '-', '. ', ', ', '\t', ' – ', '_', '/', '\u00a0', ' + ', '\n')
const typed = (word: string) =>
  fc.tuple(fc.integer({ min: 4, max: 8 }), fc.boolean(), fc.boolean()).map(([length, capital, wide]) => {
    const short = word.slice(0, Math.max(length, 3))
    const cased = capital ? short.toUpperCase() : short
    return wide ? cased.replace(/./g, (c) => String.fromCharCode(c.charCodeAt(0) + 0xfee0)) : cased
  })

test('is read however it is typed', () => {
  const words = fc.tuple(anyWord, anyWord, anyWord)
  const typing = fc.tuple(fc.integer({ min: 100, max: 999 }).map(String), words).chain(([nameplate, words]) =>
    fc.record({
      nameplate: fc.constant(nameplate),
      words: fc.constant(words),
      typed: fc.tuple(...words.map(typed)),
      separator,
      around: fc.constantFrom('', ' ', '"', '\u200b', '\n'),
    }),
  )
  fc.assert(
    fc.property(typing, ({ nameplate, words, typed, separator, around }) => {
      const text = around + [nameplate, ...typed].join(separator) + around
      assert.deepEqual(read(text), [nameplate, words.join('-')], text)
    }),
  )
})

test('composed or decomposed, wide, ligated or Kelvin: one code; look-alikes of other alphabets are none', () => {
  const expected = ['734', 'kite-office-flag']
  for (const text of [
    '734-kite-office-flag',
    '734-\u212aite-office-flag',
    '734-kite-o\ufb03ce-flag',
    '\uff17\uff13\uff14\u3000\uff2b\uff29\uff34\uff25 office flag',
    '734-ki\u00adte-of\u200dfice-\u2060flag',
    '\u{1d7d5}\u{1d7d1}\u{1d7d2} \u{1d424}ite office flag',
  ])
    for (const form of ['NFC', 'NFD', 'NFKC', 'NFKD'])
      assert.deepEqual(read(text.normalize(form)), expected, text)
  // Cyrillic i and e, Greek omicron, a dotless and a dotted i, and letters with marks in either form.
  for (const word of ['k\u0456te', 'kit\u0435', 'k\u0131te', 'k\u0130te', 'kit\u00e9', 'kite\u0301'])
    for (const form of ['NFC', 'NFD'])
      assert.match(
        refusalOf(`734-${word.normalize(form)}-office-flag`),
        /first word has something other/,
        word,
      )
  assert.match(refusalOf('734-kite-\u03bfffice-flag'), /second word has something other/)
})

test('letters that look like digits are digits where digits belong, and nowhere else', () => {
  for (const text of ['101-oil-lion-foil', '1O1-oil-lion-foil', 'l0I oil lion foil', 'i01 OIL LION FOIL'])
    assert.deepEqual(read(text), ['101', 'oil-lion-foil'], text)
  assert.match(refusalOf('oil-oil-lion-foil'), /three digits/)
  assert.match(refusalOf('734-0il-lion-foil'), /first word/)
})

test('a code that is none gets a sentence that helps', () => {
  for (const [text, says] of [
    ['', /there is no code/],
    [' - ', /there is no code/],
    ['lunar-maple-copper', /three digits/],
    ['73-lunar-maple-copper', /three digits/],
    ['7345-lunar-maple-copper', /three digits/],
    ['034-lunar-maple-copper', /100 to 999/],
    ['734', /this has 0$/],
    ['734-lunar-maple', /this has 2$/],
    ['734-lunar-maple-copper-oil', /this has 4$/],
    ['734-lunr-maple-copper', /the first word, "lunr", .* did you mean lunar\b/],
    ['734-lunar-mapel-copper', /the second word, "mapel", .* did you mean maple\b/],
    ['734-lunar-maple-coper', /the third word, "coper", .* did you mean copper\b/],
    ['734-lun-maple-copper', /did you mean lunar, lunch, fun or gun\?$/],
    ['734-lunar-maple-coppers', /did you mean copper\b/],
    ['734-lunar-qqqqqqq-copper', /the second word is none .* ask again/],
    ['734-lunar-c-copper', /the second word is none/],
    [`734-lunar-${'q'.repeat(200)}-copper`, /the second word is none .* ask again/],
    ['734-lunar-mäple-copper', /the second word has something other than the letters a to z/],
    ['734-lunar-\u001b[2Jmaple-copper', /this has 4|second word/],
    ['7'.repeat(257), /too long/],
  ] as const) {
    assert.match(refusalOf(text), says, text)
    assert.match(refusalOf(text), /^[\x20-\x7e]+$/, text)
  }
})

test('a slip in any word finds that word again, or is that word', () => {
  const slip = fc
    .tuple(anyWord, fc.nat(6), fc.constantFrom('drop', 'double', 'swap'))
    .map(([word, n, kind]) => {
      const at = 1 + (n % (word.length - 2))
      const [a = '', b = ''] = word.slice(at)
      const mended = { drop: b, double: a + a + b, swap: b + a }[kind] ?? ''
      return { word, wrong: word.slice(0, at) + mended + word.slice(at + 2) }
    })
  fc.assert(
    fc.property(slip, ({ word, wrong }) => {
      const near = nearestWords(wrong)
      assert.ok(near.length <= 4)
      // Four may be as near as the one that was meant.
      if (wordFor(wrong) === undefined && near.length < 4) assert.ok(near.includes(word), `${wrong}: ${near}`)
    }),
    { numRuns },
  )
  assert.deepEqual(nearestWords('zzzzzz'), [])
  assert.deepEqual(nearestWords('q'.repeat(1000)), [])
})

test('any text is a code or the one error', () => {
  const fields = fc.array(fc.oneof(anyWord, fc.string({ unit: 'grapheme' }), fc.nat(2000).map(String)), {
    maxLength: 6,
  })
  const codeLike = fc.tuple(fields, separator).map(([fields, separator]) => fields.join(separator))
  fc.assert(
    fc.property(fc.oneof(codeLike, fc.string({ unit: 'binary', maxLength: 300 })), (text) => {
      if (refusalOf(text) !== 'accepted') return
      const { nameplate, secret } = parseCode(text)
      assert.match(`${nameplate}-${Buffer.from(secret)}`, /^[1-9]\d\d(-[a-z]{3,8}){3}$/)
    }),
    { numRuns },
  )
})

test('a ticket and a code are told apart, also when damaged', () => {
  const ticket = encodeTicket({
    peerId: formatPeerId(new Uint8Array(32)),
    addresses: [],
    inviteId: new Uint8Array(8),
    secret: new Uint8Array(16),
    expires: 0,
  })
  for (const text of [
    ticket,
    ticket.toLowerCase(),
    `> ${ticket.replace(/.{30}/g, '$&\n> ')}`,
    ticket.slice(0, 20),
    ticket.slice(20),
    formatPeerId(new Uint8Array(32)),
    'farport',
  ])
    assert.equal(describesTicketOrCode(text), 'ticket', text)
  for (const text of [
    newCode().text,
    ' 734  Lunar, Maple, Copper. ',
    '734-abstract-accident-acoustic',
    'lunar maple',
    '734',
    '',
    ' '.repeat(100),
  ])
    assert.equal(describesTicketOrCode(text), 'code', text)
})
