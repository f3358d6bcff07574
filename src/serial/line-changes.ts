import type { InputLines, LineChanges } from './port.ts'

/** One for each line that differs; undefined when none does. */
export function lineChanges(before: InputLines, now: InputLines): LineChanges | undefined {
  const changes = {
    cts: Number(now.cts !== before.cts),
    dsr: Number(now.dsr !== before.dsr),
    ri: Number(now.ri !== before.ri),
    dcd: Number(now.dcd !== before.dcd),
  }
  return changes.cts + changes.dsr + changes.ri + changes.dcd > 0 ? changes : undefined
}
