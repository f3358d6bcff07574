import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type ClientRequest, type InForce, Rfc2217Client } from '../../src/rfc2217/client.ts'
import type { InputLines } from '../../src/rfc2217/line.ts'
import { Rfc2217Server } from '../../src/rfc2217/server.ts'
import { concat } from '../../src/telnet/encoder.ts'
import { cutAt, cuts, toHex } from '../telnet/stream.ts'
import { ALL_LOW, FakePort } from './port.ts'

const baudRate = fc.oneof(
  fc.constantFrom(9600, 0x00ff00ff, 0xffffffff),
  fc.integer({ min: 1, max: 0xffffffff }),
)
const settings = fc
  .record(
    {
      baudRate,
      dataBits: fc.constantFrom(5, 6, 7, 8),
      parity: fc.constantFrom('none', 'odd', 'even', 'mark', 'space'),
      stopBits: fc.constantFrom(1, 1.5, 2),
      outputFlow: fc.constantFrom('none', 'xonxoff', 'rtscts', 'dcd', 'dsr'),
      inputFlow: fc.constantFrom('none', 'xonxoff', 'rtscts', 'dtr'),
    },
    { requiredKeys: [], noNullPrototype: true },
  )
  .filter((change) => Object.keys(change).length > 0)
const outputs = fc
  .record({ dtr: fc.boolean(), rts: fc.boolean() }, { requiredKeys: [], noNullPrototype: true })
  .filter((change) => Object.keys(change).length > 0)
const inputs = fc.record(
  { cts: fc.boolean(), dsr: fc.boolean(), ri: fc.boolean(), dcd: fc.boolean() },
  { noNullPrototype: true },
)
const subjects = [
  'baudRate',
  'dataBits',
  'parity',
  'stopBits',
  'outputFlow',
  'inputFlow',
  'dtr',
  'rts',
  'break',
] as const

type Act =
  | { act: 'request'; request: ClientRequest }
  | { act: 'write' | 'receive'; bytes: Uint8Array }
  | { act: 'lines'; lines: InputLines }
  | { act: 'travel'; to: 'server' | 'client' }

const request = (of: fc.Arbitrary<ClientRequest>): fc.Arbitrary<Act> =>
  of.map((request) => ({ act: 'request', request }))
const act: fc.Arbitrary<Act> = fc.oneof(
  request(settings.map((change) => ({ type: 'configure', change: change as InForce }))),
  request(outputs.map((change) => ({ type: 'set-lines', change: change as InForce }))),
  request(fc.boolean().map((on) => ({ type: 'set-break', on }))),
  request(fc.constantFrom('rx', 'tx', 'both').map((what) => ({ type: 'purge', what }) as ClientRequest)),
  request(fc.subarray([...subjects], { minLength: 1 }).map((what) => ({ type: 'query', what }))),
  fc.uint8Array({ minLength: 1 }).map((bytes): Act => ({ act: 'write', bytes })),
  fc.uint8Array({ minLength: 1 }).map((bytes): Act => ({ act: 'receive', bytes })),
  inputs.map((lines): Act => ({ act: 'lines', lines })),
  fc.constantFrom('server' as const, 'client' as const).map((to): Act => ({ act: 'travel', to })),
)

/** A client half and a server half with its port, joined by two wires that deliver when told to. */
class Pair {
  readonly client = new Rfc2217Client()
  readonly server = new Rfc2217Server({ signature: 'farport' })
  readonly port = new FakePort()
  readonly answers: { request: ClientRequest; inForce: InForce }[] = []
  lines: InputLines = ALL_LOW
  seenLines: InputLines | undefined
  written = ''
  read = ''
  #toServer: Uint8Array[] = []
  #toClient: Uint8Array[] = []

  constructor() {
    this.#toServer.push(this.client.start())
    this.#toClient.push(this.server.start())
  }

  request(request: ClientRequest): void {
    this.#toServer.push(this.client.request(request))
  }

  write(bytes: Uint8Array): void {
    this.#toServer.push(this.client.data(bytes))
  }

  receive(bytes: Uint8Array): void {
    this.#toClient.push(this.server.data(bytes))
  }

  moveLines(lines: InputLines): void {
    this.lines = lines
    const bytes = this.server.modemState(lines)
    if (bytes) this.#toClient.push(bytes)
  }

  /** Delivers what is under way to one side, cut at the places named. False when there was nothing. */
  travel(to: 'server' | 'client', places: readonly number[]): boolean {
    const wire = concat(to === 'server' ? this.#toServer : this.#toClient)
    if (to === 'server') this.#toServer = []
    else this.#toClient = []
    for (const chunk of cutAt(wire, places)) {
      if (to === 'server') this.#serverHears(chunk)
      else this.#clientHears(chunk)
    }
    return wire.length > 0
  }

  #serverHears(chunk: Uint8Array): void {
    for (const event of this.server.push(chunk)) {
      if (event.type === 'data') this.written += `${toHex(event.bytes)} `
      else if (event.type === 'send') this.#toClient.push(event.bytes)
      else if (event.type === 'request') this.#toClient.push(this.port.perform(this.server, event.request))
      else if (event.type === 'active') this.moveLines(this.lines)
      else assert.fail(event.type)
    }
  }

  #clientHears(chunk: Uint8Array): void {
    for (const event of this.client.push(chunk)) {
      if (event.type === 'data') this.read += `${toHex(event.bytes)} `
      else if (event.type === 'send') this.#toServer.push(event.bytes)
      else if (event.type === 'answer') this.answers.push(event)
      else if (event.type === 'modem-state') this.seenLines = event.lines
      else assert.ok(event.type === 'active', event.type)
    }
  }
}

test('the two halves agree, whatever they say and however their bytes are cut', () => {
  fc.assert(
    fc.property(fc.array(act, { maxLength: 40 }), cuts, (acts, places) => {
      const pair = new Pair()
      const asked: ClientRequest[] = []
      let written = ''
      let received = ''
      for (const step of acts) {
        switch (step.act) {
          case 'request':
            asked.push(step.request)
            pair.request(step.request)
            break
          case 'write':
            written += `${toHex(step.bytes)} `
            pair.write(step.bytes)
            break
          case 'receive':
            received += `${toHex(step.bytes)} `
            pair.receive(step.bytes)
            break
          case 'lines':
            pair.moveLines(step.lines)
            break
          case 'travel':
            pair.travel(step.to, places)
            break
        }
      }
      let journeys = 0
      while ([pair.travel('server', places), pair.travel('client', places)].includes(true)) {
        journeys++
        assert.ok(journeys < 10, 'they never come to rest')
      }

      assert.equal(pair.client.active && pair.server.active, true)
      assert.equal(pair.written, written)
      assert.equal(pair.read, received)
      assert.deepEqual(pair.seenLines, pair.lines)

      // Each request has its answer, which says what was asked for, or what earlier requests had brought.
      assert.equal(pair.answers.length, asked.length)
      const inForce: Required<InForce> = { ...new FakePort().settings, dtr: true, rts: true, break: false }
      for (const request of asked) {
        const answer = pair.answers.find((candidate) => candidate.request === request)
        assert.ok(answer, JSON.stringify(request))
        const expected: InForce = {}
        const expect = (change: InForce) => {
          Object.assign(inForce, change)
          Object.assign(expected, change)
        }
        if (request.type === 'configure') {
          const { outputFlow } = request.change
          if (outputFlow && outputFlow !== 'dcd' && outputFlow !== 'dsr') inForce.inputFlow = outputFlow
          expect(request.change)
        } else if (request.type === 'set-lines') expect(request.change)
        else if (request.type === 'set-break') expect({ break: request.on })
        else if (request.type === 'query')
          expect(Object.fromEntries(request.what.map((subject) => [subject, inForce[subject]])))
        assert.deepEqual(answer.inForce, expected)
      }
      assert.deepEqual({ ...pair.port.settings, ...pair.port.outputs, break: pair.port.break }, inForce)
    }),
  )
})

test('lines set in one request move in one step at the far end', () => {
  const pair = new Pair()
  pair.request({ type: 'set-lines', change: { dtr: false, rts: true } })
  pair.travel('server', [])
  assert.deepEqual(pair.port.log, ['set-lines {"dtr":false,"rts":true}'])
})
