import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ConfigError, parseConfigFile } from '../../src/config/config-file.ts'
import { FarportError } from '../../src/errors.ts'
import { type Format, type Imported, importConfig } from '../../src/import/import-config.ts'

/** What farport reads of the result. */
const configOf = ({ yaml }: Imported) => parseConfigFile(yaml, 'farport.yaml')

const devicesOf = (imported: Imported) =>
  Object.fromEntries(
    Object.entries(configOf(imported).ports ?? {}).map(([name, { device }]) => [name, device]),
  )

/** `line: what` of all that was left out. */
const told = ({ leftOut }: Imported) => leftOut.map(({ line, what }) => `${line}: ${what}`)

/** What farport.yaml itself makes of a key of a port; undefined when it does not have it. */
function readPort(key: string, value: unknown): unknown {
  try {
    const file = parseConfigFile(JSON.stringify({ ports: { p: { device: '/dev/p', [key]: value } } }), 'it')
    return (file.ports?.p as Record<string, unknown> | undefined)?.[key]
  } catch (error) {
    assert.ok(error instanceof ConfigError)
    return undefined
  }
}

/** A setting is in the port as farport.yaml reads it or, where that has no such key, it is told at its line. */
function takenOrTold(
  imported: Imported,
  port: string,
  key: string,
  value: unknown,
  line: number,
  what: string,
) {
  const expected = readPort(key, value)
  const settings = configOf(imported).ports?.[port] as Record<string, unknown> | undefined
  assert.ok(settings, `there is no port ${port}`)
  if (expected !== undefined) assert.deepEqual(settings[key], expected)
  else {
    const lost = imported.leftOut.filter((each) => each.line === line && each.what === what)
    assert.ok(lost.length > 0, `${line}: ${what} is neither taken nor told`)
    // A client can ask for the line by itself, so it is told which.
    if (key === 'line')
      assert.ok(
        lost.some(({ why }) => why.includes(String(value))),
        JSON.stringify(lost),
      )
  }
}

const conf = String.raw`# what a rack had
BANNER:hello:port \p is \d [\s]\r\n
OPENSTR:wake:AT\x0d
TRACEFILE:log:/var/log/\d.log
DEVICE:plc:/dev/ttyUSB0:EVEN 7DATABITS
CONTROLPORT:localhost,3000
DEFAULT:speed:19200
localhost,2000:telnet:600:/dev/ttyS0:9600 8DATABITS NONE 1STOPBIT hello wake RTSCTS remctl
2001:raw:0:plc:kickolduser tb=log max-connections=3 chardelay-min=5000 \
   HANGUP_WHEN_DONE -LOCAL led-tx=front 2STOPBITS
2002:off:0:/dev/ttyS9:9600
2003:telnet:0:/dev/ttyS0:4800 -chardelay
something else
`

test('ser2net.conf: devices, named ones too, and each thing that is lost with its line', () => {
  const imported = importConfig(conf, 'ser2net.conf')
  assert.equal(imported.format, 'ser2net.conf')
  assert.deepEqual(devicesOf(imported), {
    ttyS0: '/dev/ttyS0',
    ttyUSB0: '/dev/ttyUSB0',
    'ttyS0-2': '/dev/ttyS0',
  })
  takenOrTold(imported, 'ttyS0', 'line', '9600-8N1', 8, 'line')
  takenOrTold(imported, 'ttyS0', 'flow', 'rtscts', 8, 'flow control')
  takenOrTold(imported, 'ttyS0', 'idle-timeout', '10m', 8, 'timeout')
  takenOrTold(imported, 'ttyS0', 'banner', 'port 2000 is /dev/ttyS0 [9600N81]\r\n', 8, 'hello')
  takenOrTold(imported, 'ttyS0', 'open-string', 'AT\r', 8, 'wake')
  takenOrTold(imported, 'ttyUSB0', 'line', '19200-7E2', 9, 'line')
  takenOrTold(imported, 'ttyUSB0', 'capture', { file: '/var/log/ttyUSB0.log' }, 9, 'tb=log')
  takenOrTold(imported, 'ttyUSB0', 'on-close', { dtr: false, rts: false }, 9, 'hangup-when-done')
  takenOrTold(imported, 'ttyUSB0', 'pack', { gap: '5ms' }, 9, 'chardelay-min=5000')
  takenOrTold(imported, 'ttyS0-2', 'line', '4800-8N1', 12, 'line')
  for (const lost of [
    '6: CONTROLPORT',
    '9: kickolduser',
    '9: max-connections=3',
    '9: -LOCAL',
    '9: led-tx=front',
    '11: 2002:off:0:/dev/ttyS9',
    '13: something else',
  ])
    assert.ok(told(imported).includes(lost), `${lost} is not told: ${told(imported).join(', ')}`)
  // What farport does anyway is no loss.
  assert.ok(!told(imported).some((lost) => /remctl|-chardelay/.test(lost)))
})

const yaml = String.raw`%YAML 1.1
---
define: &hello "port \\o on *(where) \\r\\n"
define: &where shelf 3
led: &red
  driver: sysfs
default:
  name: speed
  value: 4800
  class: serialdev
connection: &plc
  accepter: telnet(rfc2217),tcp,localhost,2000
  timeout: 90
  connector: serialdev,
     /dev/ttyUSB0,
     19200e72,local rtscts,dtr=off
  options:
    banner: *hello
    kickolduser: false
    max-connections: 1
    openstr: 'go\r'
    sendon: '\r\n'
    led-tx: *red
    trace-both: '/tmp/\Y'
connection: &meter
  accepter: ssl(key=/etc/k),tcp,2001
  connector: serialdev,/dev/ttyS1
connection: &far
  accepter: udp,2002
  connector: telnet(rfc2217),tcp,plc.example.org,4000
connection: &bytes
  accepter: 2003
  connector: tcp,::1,4001
connection: &off
  accepter: tcp,2004
  enable: off
  connector: serialdev,/dev/ttyS2
connection: &odd
  accepter: tcp,2005
  connector: ipmisol,lan -U me -p 9001 there,9600
rotator: &any
  accepter: tcp,2006
  connections: [ *plc ]
include: more/*.yaml
default:
  name: kickolduser
  value: true
connection: &last
  accepter: tcp,2007
  connector: serialdev,/dev/ttyS3
`

test('ser2net.yaml: repeated keys, aliases in texts, defaults, stacks of gensios', () => {
  const imported = importConfig(yaml, 'ser2net.yaml')
  assert.equal(imported.format, 'ser2net.yaml')
  assert.deepEqual(devicesOf(imported), {
    plc: '/dev/ttyUSB0',
    meter: '/dev/ttyS1',
    far: 'rfc2217://plc.example.org:4000',
    bytes: 'tcp://[::1]:4001',
    last: '/dev/ttyS3',
  })
  takenOrTold(imported, 'plc', 'line', '19200-7E2', 14, 'line')
  takenOrTold(imported, 'plc', 'flow', 'rtscts', 14, 'flow control')
  takenOrTold(imported, 'plc', 'on-open', { dtr: false }, 14, 'dtr, rts')
  takenOrTold(imported, 'plc', 'idle-timeout', '90s', 13, 'timeout')
  takenOrTold(imported, 'plc', 'banner', 'port plc on shelf 3 \r\n', 18, 'banner')
  takenOrTold(imported, 'plc', 'open-string', 'go\r', 21, 'openstr')
  takenOrTold(imported, 'plc', 'pack', { until: '\\x0d\\x0a' }, 22, 'sendon')
  takenOrTold(imported, 'meter', 'line', '4800-8N1', 27, 'line')
  for (const lost of [
    '5: led',
    '23: led-tx',
    '24: trace-both',
    '26: accepter',
    '29: accepter',
    '34: off',
    '40: connector',
    '41: rotator',
    '44: include',
    '45: default kickolduser',
  ])
    assert.ok(told(imported).includes(lost), `${lost} is not told: ${told(imported).join(', ')}`)
  assert.match(imported.leftOut.find(({ line }) => line === 45)?.why ?? '', /--steal/)
  assert.ok(!told(imported).some((lost) => /: kickolduser|max-connections/.test(lost)))
})

/** Pairs of a command and what farport.yaml says for it. */
const commands: { line: string; ports?: object; links?: object[]; lost?: string[] }[] = [
  {
    line: 'socat pty,link=/dev/vgps,raw,echo=0,b9600,mode=660,group=dialout tcp:gps.example.org:7000',
    links: [{ port: 'peer-at-gps.example.org/port-7000', pty: '/dev/vgps', mode: '660', group: 'dialout' }],
  },
  {
    line: '/usr/bin/socat -d -d tcp4:[::1]:7001,nodelay PTY,link=/tmp/tty1,waitslave,user=anna,cs7,parenb &',
    links: [{ port: 'peer-at-1/port-7001', pty: '/tmp/tty1', line: '7E1' }],
    lost: ['user=anna'],
  },
  { line: 'socat PTY,link=tty1 tcp:far:7000', lost: ['socat PTY,link=tty1 tcp:far:7000'] },
  {
    line: 'socat tcp-listen:5555,fork,bind=10.0.0.1 openssl:far:7001,verify=0',
    links: [{ port: 'peer-at-far/port-7001', raw: '127.0.0.1:5555' }],
    lost: ['bind=10.0.0.1', 'openssl:far:7001'],
  },
  {
    line: 'ExecStart=/usr/bin/socat /dev/ttyS1,b9600,parenb,parodd,cstopb tcp:far:7000',
    links: [{ port: 'peer-at-far/port-7000', serial: '/dev/ttyS1', line: '9600-8O2' }],
  },
  {
    line: 'while true; do socat TCP-LISTEN:2000,fork FILE:/dev/ttyUSB0,raw; done',
    ports: { ttyUSB0: '/dev/ttyUSB0' },
  },
  { line: 'socat - tcp:far:7000', lost: ['socat - tcp:far:7000'] },
  { line: 'socat pty pty', lost: ['socat pty pty'] },
  { line: 'com2tcp-rfc2217 COM1 7000', ports: { COM1: 'COM1' } },
  { line: String.raw`com2tcp-rfc2217.bat \\.\COM12 7000`, ports: { COM12: 'COM12' } },
  {
    line: String.raw`com2tcp-rfc2217 --awak-seq hi \\.\CNCB0 plc.example.org 7000`,
    links: [{ port: 'peer-at-plc.example.org/port-7000', rfc2217: '127.0.0.1:7000' }],
    lost: ['--awak-seq=hi'],
  },
  {
    line: 'com2tcp --ignore-dsr /dev/ttyS1 plc 7001',
    links: [{ port: 'peer-at-plc/port-7001', serial: '/dev/ttyS1' }],
    lost: ['--ignore-dsr'],
  },
  {
    line: String.raw`hub4com --create-filter=telnet,tcp,telnet:" --comport=server" --add-filters=1:tcp "\\.\COM3" --use-driver=tcp "*7003"`,
    ports: { COM3: 'COM3' },
  },
  {
    line: 'hub4com --bi-route=0:1 --create-filter=crypt COM5 --use-driver=tcp far:7000',
    links: [{ port: 'peer-at-far/port-7000', raw: '127.0.0.1:7000' }],
    lost: ['--create-filter=crypt'],
  },
  { line: 'hub4com COM3 --use-driver=tcp *7003 *7004', ports: { COM3: 'COM3' } },
  {
    line: 'hub4com --route=All:All COM1 CNCB1 CNCB2',
    lost: ['routes between ports of one kind'],
  },
]

for (const { line, ports = {}, links = [], lost = [] } of commands)
  test(line, () => {
    const imported = importConfig(`#!/bin/sh\n${line}\n`, 'run.sh')
    assert.equal(imported.format, 'commands')
    assert.deepEqual(devicesOf(imported), ports)
    const expected =
      links.length === 0 ? undefined : parseConfigFile(JSON.stringify({ links }), 'expected').links
    assert.deepEqual(configOf(imported).links, expected)
    assert.deepEqual(told(imported).toSorted(), lost.map((what) => `2: ${what}`).toSorted())
  })

test('lines of com2tcp and socat are taken, or told', () => {
  const text = [
    'com2tcp-rfc2217 --baud 19200 --parity=even --octs=on COM1 7000',
    'socat -T 60 tcp-listen:1,fork /dev/ttyS1,b4800,cs7,parenb,crtscts',
  ].join('\n')
  const imported = importConfig(text, 'run.sh')
  takenOrTold(imported, 'COM1', 'line', '19200-8E1', 1, 'line')
  takenOrTold(imported, 'COM1', 'flow', 'rtscts', 1, 'flow control')
  takenOrTold(imported, 'ttyS1', 'line', '4800-7E1', 2, '/dev/ttyS1')
  takenOrTold(imported, 'ttyS1', 'idle-timeout', '1m', 2, '-T 60')
})

test('lines of a script that go on, and those that call something else', () => {
  const imported = importConfig(
    '\ufeffset -e\nsocat \\\n  tcp-listen:1,fork \\\n  /dev/ttyS1\nsleep 3\n',
    'run.sh',
  )
  assert.deepEqual(devicesOf(imported), { ttyS1: '/dev/ttyS1' })
  assert.deepEqual(told(imported), ['1: set -e', '5: sleep 3'])
})

test('a byte order mark in front is nothing', () => {
  assert.deepEqual(devicesOf(importConfig('\ufeff2000:raw:0:/dev/ttyS0:9600', 'it')), { ttyS0: '/dev/ttyS0' })
})

test('comments say where an entry comes from, and nothing that was read ends one', () => {
  const imported = importConfig('2000:raw:0:/dev/ttyS0:\u2028evil:\u0085 9600', 'a\nlinks: evil')
  assert.deepEqual(Object.keys(configOf(imported)), ['ports'])
  assert.match(imported.yaml, /^ {2}# 2000:raw:0:\/dev\/ttyS0$/m)
})

test('what is none of these, too large, or broken YAML, is told as a mistake of the input', () => {
  for (const [text, wrong] of [
    ['hello\n', /none of what farport can take over/],
    ['', /none of what/],
    [`# ${'x'.repeat(1024 * 1024)}`, /larger than 1 MiB/],
    ['connection: &a {\n', /it:2:1/],
  ] as const)
    assert.throws(
      () => importConfig(text, 'it'),
      (error) => error instanceof FarportError && error.code === 'ERR_USAGE' && wrong.test(error.message),
    )
  assert.throws(() => importConfig('just text', 'it', 'ser2net.yaml'), /it is no ser2net\.yaml/)
})

test('an alias of aliases stays small', () => {
  const defines = ['define: &a0 "0123456789"']
  for (let i = 1; i < 40; i++) defines.push(`define: &a${i} "${`*(a${i - 1})`.repeat(10)}"`)
  const text = `${defines.join('\n')}\nconnection: &c\n  accepter: tcp,1\n  connector: serialdev,/dev/ttyS0\n  options:\n    banner: *a39\n    x: *(a39)\n`
  const imported = importConfig(text, 'ser2net.yaml')
  assert.deepEqual(devicesOf(imported), { c: '/dev/ttyS0' })
  assert.ok(imported.yaml.length < 10_000)
})

test('more ports than a machine has are not taken', () => {
  const text = Array.from({ length: 1100 }, (_, i) => `${i + 1}:raw:0:/dev/tty${i}`).join('\n')
  const imported = importConfig(text, 'ser2net.conf')
  assert.equal(imported.ports, 1024)
  assert.ok(told(imported).includes('1025: 1025:raw:0:/dev/tty1024'))
})

/** Lines of the samples, cut into their words and put together in other ways, with whatever else. */
const words = [conf, yaml, ...commands.map(({ line }) => line)].join('\n').split(/(?<=[\s:,=])/)
const anything = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 200 }),
  fc
    .array(fc.oneof({ arbitrary: fc.constantFrom(...words), weight: 8 }, fc.string({ maxLength: 8 })), {
      maxLength: 60,
    })
    .map((parts) => parts.join('')),
  // Whole samples with a piece taken out or put in.
  fc
    .tuple(
      fc.constantFrom(conf, yaml, commands.map(({ line }) => line).join('\n')),
      fc.nat(2000),
      fc.nat(20),
      fc.string({ unit: 'binary', maxLength: 5 }),
    )
    .map(([text, at, length, put]) => text.slice(0, at) + put + text.slice(at + length)),
)
const formats: (Format | undefined)[] = [undefined, 'ser2net.yaml', 'ser2net.conf', 'commands']

test('any input becomes a configuration that farport reads, or one kind of error', () => {
  fc.assert(
    fc.property(anything, fc.constantFrom(...formats), (text, from) => {
      let imported: Imported
      try {
        imported = importConfig(text, 'it', from)
      } catch (error) {
        assert.ok(error instanceof FarportError, String(error))
        assert.equal(error.code, 'ERR_USAGE')
        // What comes out of a draft always fits.
        assert.ok(!(error instanceof ConfigError), error.message)
        return
      }
      const config = configOf(imported)
      assert.equal(Object.keys(config.ports ?? {}).length, imported.ports)
      assert.equal((config.links ?? []).length, imported.links)
      const lines = text.split(/\r?\n/).length
      for (const { line } of imported.leftOut)
        assert.ok(line >= 1 && line <= lines, `line ${line} of ${lines}`)
    }),
    { numRuns: 400 },
  )
})
