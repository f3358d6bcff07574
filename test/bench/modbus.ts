import { LOOPBACK } from './hosts.ts'
import type { Measured, Part } from './part.ts'
import { measure, Rig } from './rig.ts'
import { STACKS, type Stack, type StackName } from './stacks.ts'

const TRANSACTIONS = 500

interface Transactions {
  /** Milliseconds from the request to the last byte of its answer. */
  readonly p50: number
  readonly p99: number
  /** The longest silence within an answer, of all, and for one in a hundred. */
  readonly gapMax: number
  readonly gapP99: number
  /** Answers of which nothing came but in one piece. */
  readonly wholePercent: number
}

/**
 * Eight bytes out and sixty-four back, as a Modbus master asks: the device answers in pieces of eight, 0.7 ms apart, as a UART at
 * 115200 hands them over. A silence of 1.75 ms ends a frame there.
 */
export const modbus: Part = {
  name: 'modbus',
  names: ['modbus'],
  async measure(run): Promise<Measured> {
    const results: ({ stack: StackName } & Transactions)[] = []
    for (const stack of run.stacks) {
      const { carry }: Stack = STACKS[stack]
      if (carry === undefined) continue
      await using rig = new Rig()
      const { ttys } = await carry(rig, LOOPBACK, [await rig.device('modbus', 'modbus')], 'modbus')
      const found = await measure<Transactions>('transactions', ttys[0] as string, TRANSACTIONS)
      results.push({ stack, ...found })
      run.say(lineOf({ stack, ...found }))
    }
    return { results, lines: results.map(lineOf), bars: [] }
  },
}

function lineOf(it: { stack: StackName } & Transactions): string {
  return `${STACKS[it.stack].name.padEnd(36)} p50 ${it.p50} ms, p99 ${it.p99} ms; longest silence within an answer: p99 ${it.gapP99} ms, max ${it.gapMax} ms`
}
