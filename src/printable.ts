/**
 * Somebody else's words, safe to show on a terminal and to keep in one line: control and format characters, which could
 * move the cursor or turn the text around, become `\u{1b}`.
 */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (c) => `\\u{${c.codePointAt(0)?.toString(16)}}`)
}
