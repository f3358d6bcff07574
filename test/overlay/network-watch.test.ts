import assert from 'node:assert/strict'
import { mock, test } from 'node:test'
import { watchNetwork } from '../../src/overlay/network-watch.ts'

test('a changed address and a sleep are told once each; the passing of time is not, nor anything after the end', () => {
  mock.timers.enable({ apis: ['setInterval'] })
  try {
    const machine = { now: 0, address: 'eth0 192.0.2.1/24' }
    const end = new AbortController()
    let changes = 0
    watchNetwork(() => changes++, end.signal, { nowMs: () => machine.now, addresses: () => machine.address })
    const pass = (ms: number) => {
      machine.now += ms
      mock.timers.tick(2_000)
    }
    pass(2_000)
    pass(2_500)
    assert.equal(changes, 0)
    machine.address = 'wlan0 198.51.100.7/24'
    pass(2_000)
    pass(2_000)
    assert.equal(changes, 1)
    pass(3_600_000)
    pass(2_000)
    assert.equal(changes, 2)
    end.abort()
    machine.address = ''
    pass(2_000)
    assert.equal(changes, 2)
  } finally {
    mock.timers.reset()
  }
})
