/**
 * A code is an invitation short enough to be said on the telephone: 734-lunar-maple-copper.
 *
 *   734                  nameplate, 100 to 999: under which the invite is found. No secret
 *   lunar-maple-copper   three of the 2048 words of BIP 39: 33 bits
 *
 * The secret is the three words, whole and in small letters, joined by "-", in ASCII. So few bits are safe only inside
 * a PAKE that lets an attacker try a few of them and no more.
 */
import { randomInt } from 'node:crypto'
import { FarportError } from '../errors.ts'
import { nearestWords, WORDS, wordFor } from './words.ts'

export interface Code {
  /** Three digits. */
  readonly nameplate: string
  /** Fill it with zeros after use; the words it came from stay in memory until they are collected. */
  readonly secret: Uint8Array
}

export interface NewCode extends Code {
  readonly words: readonly string[]
  /** What to show and say: nameplate and words, joined by "-". */
  readonly text: string
}

const WORD_COUNT = 3
const FIRST_NAMEPLATE = 100
const NAMEPLATES = 900
const MAX_TEXT = 256
/** Many more letters and digits than a code has, fewer than any ticket. */
const MAX_CODE_LENGTH = 48
const EXAMPLE = '734-lunar-maple-copper'

/** `randomBelow` answers with each of 0 to limit - 1 equally likely, and nobody else can know which. */
export function newCode(randomBelow: (limit: number) => number = randomInt): NewCode {
  const nameplate = String(FIRST_NAMEPLATE + randomBelow(NAMEPLATES))
  const words = Array.from({ length: WORD_COUNT }, () => WORDS[randomBelow(WORDS.length)] ?? '')
  return { nameplate, words, text: [nameplate, ...words].join('-'), secret: secretOf(words) }
}

/**
 * Reads a code as a person types it: in capitals or not, with anything between digits and words, the words whole or
 * from their first four letters on, with the letters that look like digits among the digits.
 * @throws FarportError ERR_USAGE when it is none. The sentence may quote a mistyped word, which is almost a third of the
 * secret: it is for the one who typed it, and for no log.
 */
export function parseCode(text: string): Code {
  if (text.length > MAX_TEXT) throw refusal(`this is too long for a code: type it as ${EXAMPLE}`)
  // What is invisible inside a word must not part it.
  const [first, ...typed] = text
    .normalize('NFKC')
    .toLowerCase()
    .replace(/\p{Cf}/gu, '')
    .split(/[^\p{L}\p{M}\p{N}]+/u)
    .filter((field) => field !== '')
  if (first === undefined) throw refusal(`there is no code: type it as ${EXAMPLE}`)
  const nameplate = parseNameplate(first)
  if (typed.length !== WORD_COUNT)
    throw refusal(`a code has three words behind its digits, as in ${EXAMPLE}: this has ${typed.length}`)
  const words = typed.map((word, index) => wordFor(word) ?? misspelt(word, index))
  return { nameplate, secret: secretOf(words) }
}

/** Which of the two was pasted where either may be, however badly: the one whose parser will say what is wrong. */
export function describesTicketOrCode(text: string): 'ticket' | 'code' {
  const plain = text.normalize('NFKC').replace(/[^\p{L}\p{N}]/gu, '')
  return /farport/i.test(plain) || plain.length > MAX_CODE_LENGTH ? 'ticket' : 'code'
}

function parseNameplate(field: string): string {
  // Not where no digit is: "oil" is a word.
  const digits = /\d/.test(field) ? field.replaceAll('o', '0').replace(/[il]/g, '1') : field
  if (/^[1-9]\d{2}$/.test(digits)) return digits
  throw refusal(`a code begins with three digits, 100 to 999, as in ${EXAMPLE}`)
}

function misspelt(word: string, index: number): never {
  const which = ['first', 'second', 'third'][index]
  if (!/^[a-z]+$/.test(word))
    throw refusal(`the ${which} word has something other than the letters a to z in it: type it again`)
  const near = nearestWords(word)
  if (near.length === 0) throw refusal(`the ${which} word is none that codes are made of: look or ask again`)
  const or = [near.slice(0, -1).join(', '), near.at(-1)].filter((part) => part !== '').join(' or ')
  throw refusal(`the ${which} word, "${word}", is none that codes are made of: did you mean ${or}?`)
}

function secretOf(words: readonly string[]): Uint8Array {
  // Not from Node's pool, where it would lie next to others' data.
  return new TextEncoder().encode(words.join('-'))
}

function refusal(sentence: string): FarportError {
  return new FarportError('ERR_USAGE', sentence)
}
