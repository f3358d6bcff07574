import { wordlist } from '@scure/bip39/wordlists/english.js'

/** The 2048 English words of BIP 39: 3 to 8 letters from a to z, and no two begin with the same four. */
export const WORDS: readonly string[] = wordlist

const MAX_SUGGESTIONS = 4
const MAX_DISTANCE = 2

/** The word that was typed in small letters, whole or from its first four letters on. */
export function wordFor(typed: string): string | undefined {
  if (WORDS.includes(typed)) return typed
  return typed.length < 4 ? undefined : WORDS.find((word) => word.startsWith(typed))
}

/** What may have been meant by something that is no word: the likeliest first, at most four, often none. */
export function nearestWords(typed: string): string[] {
  const mostWrong = Math.min(MAX_DISTANCE, Math.floor(typed.length / 2))
  const near: { word: string; unlike: number }[] = []
  for (const word of WORDS) {
    if (Math.abs(word.length - typed.length) > MAX_DISTANCE && !word.startsWith(typed)) continue
    const wrong = word.startsWith(typed) ? 1 : editDistance(typed, word)
    // Who mistypes a word rarely does so in its first letter.
    if (wrong <= mostWrong) near.push({ word, unlike: 2 * wrong + (word[0] === typed[0] ? 0 : 1) })
  }
  near.sort((a, b) => a.unlike - b.unlike)
  const least = near[0]?.unlike ?? 0
  return near
    .filter(({ unlike }) => unlike <= least + 1)
    .slice(0, MAX_SUGGESTIONS)
    .map(({ word }) => word)
}

/** Letters put in, left out, replaced, or swapped with their neighbour (optimal string alignment). */
function editDistance(a: string, b: string): number {
  let beforeLast: number[] = []
  let last = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const at = (list: number[], k: number) => list[k] ?? Number.POSITIVE_INFINITY
      const replaced = at(last, j - 1) + (a[i - 1] === b[j - 1] ? 0 : 1)
      const swapped = a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1] ? at(beforeLast, j - 2) + 1 : replaced
      row.push(Math.min(at(last, j) + 1, at(row, j - 1) + 1, replaced, swapped))
    }
    beforeLast = last
    last = row
  }
  return last[b.length] ?? 0
}
