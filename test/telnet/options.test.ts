import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { DO, DONT, type Verb, WILL, WONT } from '../../src/telnet/bytes.ts'
import { TelnetDecoder } from '../../src/telnet/decoder.ts'
import { type OptionChange, TelnetOptions } from '../../src/telnet/options.ts'
import { toHex } from './stream.ts'

const OPTION = 44
const names: Record<Verb, string> = { [WILL]: 'WILL', [WONT]: 'WONT', [DO]: 'DO', [DONT]: 'DONT' }

function said(bytes: Uint8Array): string {
  const verbs: string[] = []
  for (const event of new TelnetDecoder().push(bytes)) {
    assert.ok(event.type === 'negotiate', toHex(bytes))
    verbs.push(names[event.verb])
  }
  return verbs.join(' ')
}

type Act = 'enable' | 'disable' | 'WILL' | 'WONT' | 'DO' | 'DONT'
type Says = '' | 'WILL' | 'WONT' | 'DO' | 'DONT'

/** What we do or hear, and what we say to it; `!` marks a change that is reported. */
const dialogues: {
  name: string
  agree: boolean
  side: 'local' | 'remote'
  steps: [Act, Says, OptionChange['to']?][]
}[] = [
  {
    name: 'we ask, the peer agrees',
    agree: true,
    side: 'remote',
    steps: [
      ['enable', 'DO'],
      ['WILL', '', 'on'],
    ],
  },
  {
    name: 'we ask, the peer refuses',
    agree: true,
    side: 'remote',
    steps: [
      ['enable', 'DO'],
      ['WONT', '', 'refused'],
    ],
  },
  {
    name: 'we offer, the peer agrees',
    agree: true,
    side: 'local',
    steps: [
      ['enable', 'WILL'],
      ['DO', '', 'on'],
    ],
  },
  {
    name: 'asked for twice, said once',
    agree: true,
    side: 'local',
    steps: [
      ['enable', 'WILL'],
      ['enable', ''],
      ['DO', '', 'on'],
      ['enable', ''],
    ],
  },
  {
    name: 'the peer offers what we want',
    agree: true,
    side: 'remote',
    steps: [
      ['WILL', 'DO', 'on'],
      ['WILL', ''],
      ['WILL', ''],
    ],
  },
  {
    name: 'the peer asks for what we know',
    agree: true,
    side: 'local',
    steps: [
      ['DO', 'WILL', 'on'],
      ['DO', ''],
    ],
  },
  {
    name: 'the peer insists on an unknown option',
    agree: false,
    side: 'local',
    steps: [
      ['DO', 'WONT'],
      ['DO', ''],
      ['DO', ''],
    ],
  },
  {
    name: 'the peer insists on doing something unknown',
    agree: false,
    side: 'remote',
    steps: [
      ['WILL', 'DONT'],
      ['WILL', ''],
    ],
  },
  {
    name: 'a refused request, taken back and made anew',
    agree: false,
    side: 'local',
    steps: [
      ['DO', 'WONT'],
      ['DONT', ''],
      ['DO', 'WONT'],
    ],
  },
  {
    name: 'the peer takes an option back',
    agree: true,
    side: 'remote',
    steps: [
      ['WILL', 'DO', 'on'],
      ['WONT', 'DONT', 'off'],
      ['WONT', ''],
    ],
  },
  { name: 'the peer forbids what is off', agree: true, side: 'local', steps: [['DONT', '']] },
  {
    name: 'we take an option back',
    agree: true,
    side: 'local',
    steps: [
      ['DO', 'WILL', 'on'],
      ['disable', 'WONT'],
      ['disable', ''],
      ['DONT', '', 'off'],
    ],
  },
  {
    name: 'we change our mind twice before the answer',
    agree: true,
    side: 'local',
    steps: [
      ['enable', 'WILL'],
      ['disable', ''],
      ['enable', ''],
      ['DO', '', 'on'],
    ],
  },
  {
    name: 'we change our mind before the yes',
    agree: true,
    side: 'local',
    steps: [
      ['enable', 'WILL'],
      ['disable', ''],
      ['DO', 'WONT'],
      ['DONT', '', 'off'],
    ],
  },
  {
    name: 'we change our mind before the no',
    agree: true,
    side: 'local',
    steps: [
      ['enable', 'WILL'],
      ['disable', ''],
      ['DONT', ''],
    ],
  },
  {
    name: 'off and on again before the answer',
    agree: true,
    side: 'remote',
    steps: [
      ['WILL', 'DO', 'on'],
      ['disable', 'DONT'],
      ['enable', ''],
      ['WONT', 'DO', 'off'],
      ['WILL', '', 'on'],
    ],
  },
  {
    name: 'off, on and off again before the answer',
    agree: true,
    side: 'remote',
    steps: [
      ['WILL', 'DO', 'on'],
      ['disable', 'DONT'],
      ['enable', ''],
      ['disable', ''],
      ['WONT', '', 'off'],
    ],
  },
  {
    name: 'a no answered by a yes',
    agree: true,
    side: 'remote',
    steps: [
      ['WILL', 'DO', 'on'],
      ['disable', 'DONT'],
      ['WILL', '', 'off'],
    ],
  },
  {
    name: 'a no answered by a yes, which by now is welcome',
    agree: true,
    side: 'remote',
    steps: [
      ['WILL', 'DO', 'on'],
      ['disable', 'DONT'],
      ['enable', ''],
      ['WILL', '', 'on'],
    ],
  },
]

const verbs: Record<Exclude<Act, 'enable' | 'disable'>, Verb> = { WILL, WONT, DO, DONT }

for (const { name, agree, side, steps } of dialogues) {
  test(`negotiates: ${name}`, () => {
    const known = agree ? [OPTION] : []
    const options = new TelnetOptions({ local: known, remote: known })
    for (const [act, says, to] of steps) {
      if (act === 'enable' || act === 'disable') {
        assert.equal(said(options[act](side, OPTION)), says, act)
      } else {
        const { reply, change } = options.receive(verbs[act], OPTION)
        assert.equal(said(reply), says, act)
        assert.deepEqual(change, to && { side, option: OPTION, to }, act)
        if (to !== undefined) assert.equal(options.isOn(side, OPTION), to === 'on')
      }
    }
  })
}

test('the two sides of an option are independent', () => {
  const options = new TelnetOptions({ local: [OPTION], remote: [] })
  assert.equal(said(options.receive(DO, OPTION).reply), 'WILL')
  assert.equal(said(options.receive(WILL, OPTION).reply), 'DONT')
  assert.equal(options.isOn('local', OPTION), true)
  assert.equal(options.isOn('remote', OPTION), false)
})

/** One end, with what is under way to it. */
interface End {
  options: TelnetOptions
  inbox: Uint8Array[]
}

test('two ends always come to rest, and then agree', () => {
  const known = fc.record({ local: fc.subarray([1, 2, 3]), remote: fc.subarray([1, 2, 3]) })
  const action = fc.oneof(
    fc.record({
      act: fc.constantFrom('enable' as const, 'disable' as const),
      end: fc.nat(1),
      side: fc.constantFrom('local' as const, 'remote' as const),
      option: fc.integer({ min: 1, max: 4 }),
    }),
    fc.record({ act: fc.constant('deliver' as const), end: fc.nat(1) }),
  )
  fc.assert(
    fc.property(known, known, fc.array(action, { maxLength: 60 }), (a, b, actions) => {
      const ends: [End, End] = [
        { options: new TelnetOptions(a), inbox: [] },
        { options: new TelnetOptions(b), inbox: [] },
      ]
      const other = (end: End) => (end === ends[0] ? ends[1] : ends[0])
      const send = (from: End, bytes: Uint8Array) => {
        if (bytes.length > 0) other(from).inbox.push(bytes)
      }
      const deliver = (to: End): boolean => {
        const message = to.inbox.shift()
        if (!message) return false
        for (const event of new TelnetDecoder().push(message)) {
          assert.ok(event.type === 'negotiate')
          send(to, to.options.receive(event.verb, event.option).reply)
        }
        return true
      }

      for (const step of actions) {
        const end = ends[step.end] as End
        if (step.act === 'deliver') deliver(end)
        else send(end, end.options[step.act](step.side, step.option))
      }
      let messages = 0
      while (deliver(ends[0]) || deliver(ends[1])) messages++
      assert.ok(messages <= 3 * actions.length, `${messages} messages after ${actions.length} actions`)

      for (const option of [1, 2, 3, 4]) {
        assert.equal(ends[0].options.isOn('local', option), ends[1].options.isOn('remote', option))
        assert.equal(ends[0].options.isOn('remote', option), ends[1].options.isOn('local', option))
      }
    }),
  )
})
