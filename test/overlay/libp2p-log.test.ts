import assert from 'node:assert/strict'
import { test } from 'node:test'
import { pino } from 'pino'
import { libp2pLog } from '../../src/overlay/libp2p-log.ts'

function written(
  level: string,
  write: (log: ReturnType<typeof libp2pLog>) => void,
): { level: number; component: string; msg: string }[] {
  const lines: string[] = []
  write(libp2pLog(pino({ level }, { write: (line: string) => void lines.push(line) })))
  return lines.map((line) => JSON.parse(line))
}

test("libp2p's lines become debug lines with their component, its own verbs filled in", () => {
  const lines = written('debug', (log) => {
    const scope = log.forComponent('libp2p:tcp').newScope('connection')
    scope('dialing %p at %a, try %d', 'a peer', { toString: () => '/ip4/192.0.2.1' }, 2)
    scope.error('failed - %e', new TypeError('no'))
    scope.trace('never written at this level')
  })
  assert.deepEqual(
    lines.map(({ level, component, msg }) => [level, component, msg]),
    [
      [20, 'libp2p:tcp:connection', 'dialing a peer at /ip4/192.0.2.1, try 2'],
      [20, 'libp2p:tcp:connection', 'failed - TypeError: no'],
    ],
  )
})

test('nothing is formatted when nobody wants it', () => {
  const lines = written('info', (log) => {
    const scope = log.forComponent('libp2p')
    assert.equal(scope.enabled, false)
    const untouchable = {
      toString() {
        throw new Error('formatted')
      },
    }
    scope('%s', untouchable)
    scope.error('%s', untouchable)
    scope.trace('%s', untouchable)
  })
  assert.deepEqual(lines, [])
})
