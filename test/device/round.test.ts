import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as immediate } from 'node:timers/promises'
import { Round } from '../../src/device/round.ts'

test('what is to be done in one round is done before anything else runs', async () => {
  const round = new Round()
  const order: string[] = []
  for (const name of ['a', 'b'])
    round.add(() => {
      order.push(name)
      process.nextTick(() => order.push('tick'))
    })
  await immediate()
  assert.deepEqual(order, ['a', 'b', 'tick', 'tick'])
})

test('what is added meanwhile is for the next round', async () => {
  const round = new Round()
  const order: string[] = []
  round.add(() => {
    order.push('first')
    round.add(() => order.push('second'))
  })
  await immediate()
  assert.deepEqual(order, ['first'])
  await immediate()
  assert.deepEqual(order, ['first', 'second'])
})

test('one that fails does not take the others along', (t) => {
  const later: (() => void)[] = []
  t.mock.method(globalThis, 'setImmediate', (callback: () => void) => later.push(callback))
  const round = new Round()
  let ran = false
  round.add(() => {
    throw new Error('broken')
  })
  round.add(() => {
    ran = true
  })
  assert.throws(() => later.shift()?.(), /broken/)
  later.shift()?.()
  assert.equal(ran, true)
})
