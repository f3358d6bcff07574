import { test } from 'node:test'
import { kill } from '../soak/kill.ts'

test('killed at any moment, it comes back as who it was, with its ports, its links and those it trusted', {
  timeout: 120_000,
  skip: process.platform !== 'linux' && 'needs PTYs of Linux',
}, async (t) => {
  await kill(8, (line) => t.diagnostic(line))
})
