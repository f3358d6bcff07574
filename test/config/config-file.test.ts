import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ConfigError, parseConfigFile } from '../../src/config/config-file.ts'

/** What is wrong with it, as people see it. */
function complaints(text: string): string[] {
  try {
    parseConfigFile(text, 'farport.yaml')
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error))
    assert.equal(error.code, 'ERR_USAGE')
    return error.message.split('\n')
  }
  return []
}

test('ports in the short form and the long one, links by PEER/PORT', () => {
  assert.deepEqual(
    parseConfigFile(
      [
        'ports:',
        '  gps: /dev/gps',
        '  plc:',
        '    device: /dev/plc   # by the door',
        'links:',
        '  - port: workshop/gps',
        '    pty: /run/farport/gps',
        '    resume: 2m',
        '  - {port: workshop/plc, rfc2217: "[::1]:4000"}',
        '  - {port: workshop/plc, raw: ":4001", watch: true, replay: 4KiB}',
        '  - {port: workshop/plc, pty: /run/farport/plc, line: 9600-7E1, mode: "600", group: dialout}',
      ].join('\n'),
      'farport.yaml',
    ),
    {
      ports: { gps: { device: '/dev/gps' }, plc: { device: '/dev/plc' } },
      links: [
        { port: { peer: 'workshop', port: 'gps' }, pty: '/run/farport/gps', resume: 120_000 },
        { port: { peer: 'workshop', port: 'plc' }, rfc2217: { host: '::1', port: 4000 } },
        {
          port: { peer: 'workshop', port: 'plc' },
          raw: { host: '127.0.0.1', port: 4001 },
          watch: true,
          replay: 4096,
        },
        {
          port: { peer: 'workshop', port: 'plc' },
          pty: '/run/farport/plc',
          line: { baudRate: 9600, dataBits: 7, parity: 'even', stopBits: 1 },
          mode: 0o600,
          group: 'dialout',
        },
      ],
    },
  )
})

test('what a port is told, one by one and for all', () => {
  const port = [
    'defaults: {watchers: 2, line: 9600-8N1}',
    'ports:',
    '  plc:',
    '    device: /dev/plc',
    '    line: 7E1',
    '    on-open: {dtr: true}',
    '    open-string: "AT\\\\r"',
    "    close-string: '\\x1b\\\\'",
    '    idle-timeout: 10m',
    '    reset: off',
    '    pack: {gap: 2ms, until: "\\\\n"}',
  ]
  const { defaults, ports } = parseConfigFile(port.join('\n'), 'farport.yaml')
  assert.equal(defaults?.watchers, 2)
  assert.deepEqual(ports?.plc, {
    device: '/dev/plc',
    line: { dataBits: 7, parity: 'even', stopBits: 1 },
    'on-open': { dtr: true },
    'open-string': 'AT\r',
    'close-string': '\x1b\\',
    'idle-timeout': 600_000,
    reset: { profile: undefined },
    pack: { gap: 2, until: '\n' },
  })
  assert.deepEqual(
    complaints(
      [
        'ports:',
        '  p: {device: /d, flow: hardware, watchers: 99}',
        '  q: {device: /d, pack: {gap: 5s}, reset: esp31}',
      ].join('\n'),
    ),
    [
      'farport.yaml:2:19: ports.p.flow: is none, rtscts or xonxoff',
      'farport.yaml:2:35: ports.p.watchers: is 16 at most',
      'farport.yaml:3:26: ports.q.pack.gap: is 1000ms at most',
      'farport.yaml:3:36: ports.q.reset: is esp32, esp32-usb, arduino-1200, off, or a sequence such as dtr-rts+/100ms/dtr+rts-/50ms/dtr-rts-',
    ],
  )
})

test('7E1 is a line and no number', () => {
  const { links } = parseConfigFile('links: [{port: a/b, pty: /p, line: 7E1}]', 'farport.yaml')
  assert.deepEqual(links?.[0]?.line, { dataBits: 7, parity: 'even', stopBits: 1 })
})

test('an empty file asks for nothing', () => {
  for (const text of ['', '# nothing\n', '{}']) assert.deepEqual(parseConfigFile(text, 'farport.yaml'), {})
})

test('each mistake is told with its line, its key, and what would be right', () => {
  const text = [
    'port:',
    '  gps: /dev/gps',
    'ports:',
    '  gps: {devise: /dev/gps}',
    '  "by the door": /dev/plc',
    'links:',
    '  - port: workshop',
    '    pty: gps',
    '  - {port: workshop/gps, resume: 30}',
    '  - {port: workshop/gps}',
    '  - {port: workshop/gps, pty: /tmp/gps, raw: ":1"}',
    'relay: {stun: 3478}',
  ]
  assert.deepEqual(complaints(text.join('\n')), [
    'farport.yaml:1:1: port: there is no such key: ports is meant?',
    'farport.yaml:4:3: ports.gps.device: is missing',
    'farport.yaml:4:9: ports.gps.devise: there is no such key: device is meant?',
    'farport.yaml:5:3: ports.by the door: is no name for a port: up to 64 letters, digits, - _ and ., or one * among them',
    'farport.yaml:7:5: links.0.port: is PEER/PORT, such as workshop/gps',
    'farport.yaml:8:5: links.0.pty: is a whole path: it begins with /',
    'farport.yaml:9:26: links.1.resume: is a length of time, such as 500ms, 30s or 10m',
    'farport.yaml:10:5: links.2: needs one of pty, rfc2217, raw, serial: where the port is to appear',
    'farport.yaml:11:5: links.3: needs one of pty, rfc2217, raw, serial: where the port is to appear',
    'farport.yaml:12:9: relay.stun: is two ports, such as [3478, 3479], or false',
  ])
})

test('what is no YAML, or the wrong kind of thing, is told, too', () => {
  assert.match(complaints('ports: [').join(), /^farport\.yaml:1:\d+: Flow sequence/)
  assert.match(complaints('ports:\n  gps: x\n  gps: y').join(), /^farport\.yaml:3:3: Map keys must be unique/)
  assert.deepEqual(complaints('ports: [gps]'), [
    'farport.yaml:1:1: ports: is a group of ports: name, colon, device',
  ])
  assert.deepEqual(complaints('just words'), ['farport.yaml:1:1: is not a group of keys'])
  assert.deepEqual(complaints(`# ${'x'.repeat(1024 * 1024)}`), ['farport.yaml:1:1: larger than 1 MiB'])
})

test('an alias bomb is refused', () => {
  const bomb = ['a: &a [x, x, x, x, x, x, x, x, x]']
  for (const [from, to] of ['ab', 'bc', 'cd', 'de', 'ef', 'fg', 'gh', 'hi'])
    bomb.push(`${to}: &${to} [${Array(9).fill(`*${from}`).join(', ')}]`)
  assert.match(complaints(bomb.join('\n')).join(), /alias/i)
})

test('whatever stands in it, there is a configuration or a ConfigError', () => {
  const words = [
    'ports',
    'links',
    'port',
    'pty',
    ':',
    '\n',
    '  ',
    '- ',
    '{',
    '}',
    '[',
    ']',
    '&a',
    '*a',
    '"',
    '!!map',
    'a/b',
  ]
  fc.assert(
    fc.property(fc.array(fc.oneof(fc.constantFrom(...words), fc.string()), { maxLength: 30 }), (parts) => {
      complaints(parts.join(''))
    }),
  )
})

test('a name with a * is for a device that is looked for', () => {
  const several = ['ports:', '  "ftdi-*": usb:0403:*', "  '*': /dev/serial/by-id/usb-u-blox*"].join('\n')
  assert.deepEqual(parseConfigFile(several, 'farport.yaml').ports, {
    'ftdi-*': { device: 'usb:0403:*' },
    '*': { device: '/dev/serial/by-id/usb-u-blox*' },
  })
  assert.deepEqual(complaints('ports:\n  gps-*: {line: 7E1, device: /dev/gps}\n  "a*b*": usb:0403:*\n'), [
    'farport.yaml:3:3: ports.a*b*: is no name for a port: up to 64 letters, digits, - _ and ., or one * among them',
  ])
  assert.deepEqual(complaints('ports:\n  gps-*: {line: 7E1, device: /dev/gps}\n'), [
    'farport.yaml:2:22: ports.gps-*.device: is one device, and a port with a * in its name is for many: usb:0403:* or /dev/serial/by-id/usb-FTDI* would be',
  ])
  assert.match(
    complaints('ports: {gps-*: /dev/gps}')[0] ?? '',
    /^farport\.yaml:1:9: ports\.gps-\*\.device: is one device/,
  )
})

test('a capture is one file of one port', () => {
  const text = [
    'ports:',
    '  a: {device: /dev/a, capture: {file: c.hex, format: pcap}}',
    '  b: {device: /dev/b, capture: {format: hex}}',
    '  c: {device: /dev/c, capture: {file: c.hex, rotate: 1KiB, keep: -1}}',
    'defaults:',
    '  capture: {file: all.hex}',
  ].join('\n')
  const [format, file, rotate, keep, defaults, ...rest] = complaints(text)
  assert.equal(format, 'farport.yaml:2:46: ports.a.capture.format: is one of hex, asciicast, pcapng')
  assert.equal(file, 'farport.yaml:3:23: ports.b.capture.file: is missing')
  assert.equal(rotate, 'farport.yaml:4:46: ports.c.capture.rotate: is 4KiB at least')
  assert.equal(keep, 'farport.yaml:4:60: ports.c.capture.keep: is 0 at least')
  assert.match(defaults ?? '', /^farport\.yaml:6:3: defaults\.capture: there is no such key/)
  assert.deepEqual(rest, [])
  const twice =
    'ports:\n  a: {device: /dev/a, capture: {file: c}}\n  b:\n    device: /dev/b\n    capture: {file: c}\n'
  assert.deepEqual(complaints(twice), [
    'farport.yaml:5:5: ports.b.capture: goes to the same file as that of a',
  ])
  assert.deepEqual(complaints('ports:\n  "u-*": {device: "usb:0403:*", capture: {file: c}}\n'), [
    'farport.yaml:2:33: ports.u-*.capture: is one file, and a port with a * in its name is for many devices',
  ])
})
