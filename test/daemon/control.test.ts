import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmod,
  link,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test as nodeTest, type TestContext } from 'node:test'
import { pino } from 'pino'
import { type ControlOptions, listenControl } from '../../src/daemon/control.ts'
import { callDaemon } from '../../src/daemon/control-client.ts'
import type { ControlContext, ControlMethod } from '../../src/daemon/control-connection.ts'
import { MAX_ANSWER_BYTES, MAX_REQUEST_BYTES } from '../../src/daemon/control-protocol.ts'
import { FarportError } from '../../src/errors.ts'
import { createLog } from '../../src/log.ts'

/** What is waited for here comes within milliseconds, or never. */
const test = (name: string, body: (t: TestContext) => Promise<void>) =>
  nodeTest(name, { timeout: 20_000 }, body)

const silent = createLog('silent')
const soon = () => AbortSignal.timeout(10_000)
const code = (expected: string, sentence = /./) => ({
  name: 'FarportError',
  code: expected,
  message: sentence,
})

async function newHome(t: TestContext): Promise<string> {
  const home = await mkdtemp(join(tmpdir(), 'farport-control-'))
  t.after(() => rm(home, { recursive: true, force: true }))
  return home
}

type Methods = Record<string, ControlMethod>

async function serve(
  t: TestContext,
  home: string,
  methods: Methods = {},
  options: Partial<ControlOptions> = {},
): Promise<AsyncDisposable> {
  const control = await listenControl(
    home,
    { ping: async () => 'pong', ...methods },
    { log: silent, ...options },
  )
  t.after(() => control[Symbol.asyncDispose]())
  return control
}

async function daemon(t: TestContext, methods?: Methods, options?: Partial<ControlOptions>): Promise<string> {
  const home = await newHome(t)
  await serve(t, home, methods, options)
  return home
}

const call = (home: string, method = 'ping', params?: unknown, onEvent?: (event: unknown) => void) =>
  callDaemon(home, method, params, { signal: soon(), ...(onEvent && { onEvent }) })

/** A client that says what it likes. */
async function rawClient(t: TestContext, home: string): Promise<Socket> {
  const socket = connect(join(home, 'control.sock')).on('error', () => {})
  t.after(() => socket.destroy())
  await once(socket, 'connect')
  return socket
}

/** What comes until the daemon hangs up. */
async function allLines(socket: Socket): Promise<unknown[]> {
  const lines: unknown[] = []
  for await (const line of createInterface({ input: socket })) lines.push(JSON.parse(line))
  return lines
}

/** A method that goes on until it is told to stop, and tells when it began and when that was. */
function endless() {
  const begun = Promise.withResolvers<ControlContext>()
  const aborted = Promise.withResolvers<void>()
  const method: ControlMethod = async (_params, context) => {
    begun.resolve(context)
    if (!context.signal.aborted) await once(context.signal, 'abort')
    aborted.resolve()
  }
  return { method, begun: begun.promise, aborted: aborted.promise }
}

/** However it ended. */
async function closed(socket: Socket): Promise<void> {
  if (!socket.closed) await new Promise<void>((resolve) => socket.resume().once('close', () => resolve()))
}

test('a question and its answer', async (t) => {
  const home = await daemon(t, {
    echo: async (params) => ({ params }),
    nothing: async () => {},
  })
  assert.deepEqual(await call(home, 'echo', { port: 'gps', text: 'grün\n\u2028' }), {
    params: { port: 'gps', text: 'grün\n\u2028' },
  })
  assert.deepEqual(await call(home, 'echo'), {})
  assert.equal(await call(home, 'nothing'), null)
})

test('without a daemon the answer is undefined', async (t) => {
  const home = await newHome(t)
  assert.equal(await call(home), undefined)
  assert.equal(await call(join(home, 'not', 'there')), undefined)
})

test('events come in order, all of them before the result', async (t) => {
  const home = await daemon(t, {
    count: async (params, { emit }) => {
      for (let n = 0; n < (params as number); n++) {
        emit({ event: 'count', n })
        if (n % 100 === 0) await new Promise(setImmediate)
      }
      return 'done'
    },
  })
  const events: unknown[] = []
  assert.equal(await call(home, 'count', 1000, (event) => events.push(event)), 'done')
  assert.deepEqual(
    events,
    Array.from({ length: 1000 }, (_, n) => ({ event: 'count', n })),
  )
})

test('an event after the result is not sent', async (t) => {
  const kept = Promise.withResolvers<ControlContext>()
  const home = await daemon(t, { keep: async (_, context) => kept.resolve(context) })
  const client = await rawClient(t, home)
  client.write('{"id":1,"method":"keep"}\n')
  const lines = createInterface({ input: client })[Symbol.asyncIterator]()
  assert.equal((await lines.next()).value, '{"id":1,"result":null}')
  ;(await kept.promise).emit({ event: 'late' })
  client.write('{"id":2,"method":"ping"}\n')
  assert.equal((await lines.next()).value, '{"id":2,"result":"pong"}')
})

test('an event that the client can not bear ends the call, and the method', async (t) => {
  const { method, begun, aborted } = endless()
  const home = await daemon(t, { watch: method })
  const refusal = assert.rejects(
    call(home, 'watch', null, () => {
      throw new Error('no room')
    }),
    { message: 'no room' },
  )
  ;(await begun).emit({ event: 'x' })
  await refusal
  await aborted
})

test('a refusal keeps its code and sentence', async (t) => {
  const home = await daemon(t, {
    invite: async () => {
      throw new FarportError('ERR_PORT_BUSY', 'gps is in use: wait', { cause: new Error('behind it') })
    },
  })
  await assert.rejects(call(home, 'invite'), (error: FarportError) => {
    assert.deepEqual([error.code, error.message], ['ERR_PORT_BUSY', 'gps is in use: wait'])
    assert.equal(error.cause, undefined)
    return error instanceof FarportError
  })
})

test('an error that is not ours goes to the log, and only there', async (t) => {
  const logged: string[] = []
  const log = pino({ level: 'warn' }, { write: (line: string) => void logged.push(line) })
  const cyclic: { self?: object } = {}
  cyclic.self = cyclic
  const home = await daemon(
    t,
    {
      trip: async () => {
        throw new TypeError('swordfish is not a function')
      },
      cyclic: async () => cyclic,
    },
    { log },
  )
  for (const method of ['trip', 'cyclic'])
    await assert.rejects(call(home, method), (error: FarportError) => {
      assert.equal(error.code, 'ERR_INTERNAL')
      assert.doesNotMatch(error.message, /swordfish|circular/)
      return true
    })
  assert.match(logged.join(''), /swordfish/)
  assert.match(logged.join(''), /"method":"cyclic"/)
})

test('a method that nobody wrote is refused, whatever objects call their own', async (t) => {
  const home = await daemon(t)
  for (const method of ['tomorrow', 'constructor', '__proto__', 'toString', ''])
    await assert.rejects(call(home, method), code('ERR_PROTOCOL', /another version/))
})

test('requests of one connection run at the same time and are told apart by their id', async (t) => {
  const gates = new Map<number, () => void>()
  const all = Promise.withResolvers<void>()
  const home = await daemon(t, {
    wait: async (params) => {
      const gate = Promise.withResolvers<void>()
      gates.set(params as number, gate.resolve)
      if (gates.size === 16) all.resolve()
      await gate.promise
      return params
    },
  })
  const client = await rawClient(t, home)
  const lines = createInterface({ input: client })[Symbol.asyncIterator]()
  const next = async () => JSON.parse((await lines.next()).value ?? 'null')
  for (let id = 0; id < 16; id++) client.write(`${JSON.stringify({ id, method: 'wait', params: id })}\n`)
  await all.promise

  client.write('{"id":16,"method":"ping"}\n')
  const { id, error } = await next()
  assert.deepEqual([id, error.code], [16, 'ERR_PROTOCOL'])
  assert.match(error.message, /16 requests are under way/)

  for (let n = 15; n >= 0; n--) {
    gates.get(n)?.()
    assert.deepEqual(await next(), { id: n, result: n })
  }
  client.write('{"id":0,"method":"ping"}\n')
  assert.deepEqual(await next(), { id: 0, result: 'pong' }, 'an id may be used again')
})

test('an id that is under way ends the connection', async (t) => {
  const { method, aborted } = endless()
  const home = await daemon(t, { watch: method })
  const client = await rawClient(t, home)
  client.write('{"id":1,"method":"watch"}\n{"id":1,"method":"watch"}\n')
  const [line] = (await allLines(client)) as [{ id: null; error: { message: string } }]
  assert.equal(line.id, null)
  assert.match(line.error.message, /id 1 is still under way/)
  await aborted
})

test('one farport for each home', async (t) => {
  const home = await daemon(t)
  await assert.rejects(
    serve(t, home),
    code('ERR_IN_USE', /another farport already runs for .*: end it first/),
  )
  assert.equal(await call(home), 'pong')
  assert.deepEqual(await readdir(home), ['control.sock'], 'the refused one leaves nothing')
  await daemon(t)
})

test('the home is free again when its farport has ended', async (t) => {
  const home = await newHome(t)
  for (let n = 0; n < 3; n++) {
    await using _control = await listenControl(home, { n: async () => n }, { log: silent })
    assert.equal(await call(home, 'n'), n)
  }
  assert.equal(await call(home), undefined)
})

test('a killed farport leaves its socket, which the next one replaces', async (t) => {
  const home = await newHome(t)
  await killedDaemon(home)
  assert.ok((await lstat(join(home, 'control.sock'))).isSocket())
  assert.equal(await call(home), undefined, 'nobody is behind it')
  await serve(t, home)
  assert.equal(await call(home), 'pong')
  assert.deepEqual(await readdir(home), ['control.sock'])
})

test('of several that start at once on a stale socket one gets the home', async (t) => {
  for (let round = 0; round < 10; round++) {
    const home = await newHome(t)
    await leaveStaleSocket(home)
    const starts = await Promise.allSettled(
      Array.from({ length: 8 }, (_, n) => serve(t, home, { who: async () => n })),
    )
    const winners = starts.flatMap(({ status }, n) => (status === 'fulfilled' ? [n] : []))
    assert.equal(winners.length, 1)
    for (const start of starts)
      if (start.status === 'rejected') assert.equal(start.reason.code, 'ERR_IN_USE', String(start.reason))
    assert.equal(await call(home, 'who'), winners[0])
    assert.deepEqual(await readdir(home), ['control.sock'])
  }
})

test('a start that was killed half-way is not in the way of the next', async (t) => {
  const home = await newHome(t)
  await mkdir(join(home, '.c-aaaaaa'))
  await leaveStaleSocket(join(home, '.c-aaaaaa'), 's')
  await mkdir(join(home, '.c-bbbbbb'))
  await writeFile(join(home, '.c-cccccc'), 'somebody else made this')
  await serve(t, home)
  assert.equal(await call(home), 'pong')
})

test('what killed starts have left goes once nobody can be starting there any more', async (t) => {
  const home = await newHome(t)
  for (const name of ['.c-aaaaaa', '.c-bbbbbb']) {
    await mkdir(join(home, name))
    await leaveStaleSocket(join(home, name), 's')
  }
  const twoHoursAgo = Date.now() / 1000 - 2 * 60 * 60
  await utimes(join(home, '.c-aaaaaa'), twoHoursAgo, twoHoursAgo)
  await serve(t, home)
  assert.deepEqual(await readdir(home), ['.c-bbbbbb', 'control.sock'])
})

test('a start gives way to one that began before it and does not come to its end', async (t) => {
  const home = await newHome(t)
  await mkdir(join(home, '.c-000000'))
  const stuck = createServer().listen(join(home, '.c-000000', 's'))
  t.after(() => stuck.close())
  await once(stuck, 'listening')
  await assert.rejects(serve(t, home), code('ERR_IN_USE'))
  assert.deepEqual(await readdir(home), ['.c-000000'])
})

test('only its owner may use the socket, whatever the umask', async (t) => {
  const home = await newHome(t)
  const umask = process.umask(0)
  try {
    await serve(t, home)
  } finally {
    process.umask(umask)
  }
  assert.equal((await lstat(join(home, 'control.sock'))).mode & 0o777, 0o600)
})

test('a home into which others can write holds no socket', async (t) => {
  const home = await newHome(t)
  await chmod(home, 0o770)
  await assert.rejects(serve(t, home), code('ERR_HOME', /writable by others/))
})

test('a file in the place of the socket is not thrown away', async (t) => {
  const home = await newHome(t)
  await writeFile(join(home, 'control.sock'), 'precious')
  await assert.rejects(serve(t, home), code('ERR_HOME', /not a socket/))
  await assert.rejects(call(home), code('ERR_HOME', /not a socket/))
  assert.equal(await readFile(join(home, 'control.sock'), 'utf8'), 'precious')
  assert.deepEqual(await readdir(home), ['control.sock'])
})

test('a path as long as a socket can have works, a longer one is named', async (t) => {
  const longest = process.platform === 'linux' ? 107 : 103
  const base = await newHome(t)
  const home = join(base, 'h'.repeat(longest - join(base, '/control.sock').length - 1))
  assert.equal(join(home, 'control.sock').length, longest)
  for (const path of [home, `${home}h`]) await mkdir(path, { mode: 0o700 })
  await serve(t, home)
  assert.equal(await call(home), 'pong')
  const tooLong = code('ERR_HOME', /1 bytes too long for a socket/)
  await assert.rejects(serve(t, `${home}h`), tooLong)
  await assert.rejects(call(`${home}h`), tooLong)
})

test('a client that hangs up aborts its methods, not those of others', async (t) => {
  const [mine, other] = [endless(), endless()]
  const home = await daemon(t, { mine: mine.method, other: other.method })
  const [client, bystander] = [await rawClient(t, home), await rawClient(t, home)]
  client.write('{"id":1,"method":"mine"}\n')
  bystander.write('{"id":1,"method":"other"}\n')
  await mine.begun
  const { signal } = await other.begun
  client.end()
  await mine.aborted
  assert.equal(await call(home), 'pong')
  assert.equal(signal.aborted, false)
})

test('a call that is given up rejects with the reason and aborts its method', async (t) => {
  const { method, begun, aborted } = endless()
  const home = await daemon(t, { watch: method })
  const stop = new AbortController()
  const watching = assert.rejects(
    callDaemon(home, 'watch', null, { signal: stop.signal }),
    (error) => error === stop.signal.reason,
  )
  await begun
  stop.abort(new Error('enough'))
  await watching
  await aborted
  const reason = { message: 'enough' }
  await assert.rejects(callDaemon(home, 'ping', null, { signal: stop.signal }), reason)
})

test('closing ends what is under way and leaves no file', async (t) => {
  const home = await newHome(t)
  const { method, begun, aborted } = endless()
  const control = await serve(t, home, { watch: method })
  const idle = await rawClient(t, home)
  const watching = assert.rejects(call(home, 'watch'), code('ERR_PROTOCOL', /ended before it answered/))
  await begun
  await control[Symbol.asyncDispose]()
  await aborted
  await watching
  await closed(idle)
  assert.deepEqual(await readdir(home), [])
})

test('closing leaves nothing that keeps a process alive, not even for a while', async (t) => {
  const home = await newHome(t)
  const child = runDaemon(
    home,
    `await once(process.stdin, 'data')
    await control[Symbol.asyncDispose]()
    console.log(process.getActiveResourcesInfo().includes('Timeout') ? 'a timer is left' : 'nothing is left')`,
  )
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  assert.equal((await lines.next()).value, 'ready')
  const idle = await rawClient(t, home)
  assert.equal(await call(home), 'child')
  const exit = once(child, 'exit')
  child.stdin.end('close')
  assert.equal((await lines.next()).value, 'nothing is left')
  assert.deepEqual(await exit, [0, null])
  await closed(idle)
})

test('closing does not take away a socket that is not ours', async (t) => {
  const home = await newHome(t)
  const path = join(home, 'control.sock')
  const first = await serve(t, home)
  await rename(path, `${path}.moved`)
  await serve(t, home, { who: async () => 'second' })
  await first[Symbol.asyncDispose]()
  assert.equal(await call(home, 'who'), 'second')
})

test('closing waits for a method that heeds its signal, and not for one that does not', async (t) => {
  const warnings: string[] = []
  const log = pino({ level: 'warn' }, { write: (line: string) => void warnings.push(line) })
  const home = await newHome(t)
  const begun = Promise.withResolvers<void>()
  let tidied = false
  const control = await serve(
    t,
    home,
    {
      tidy: async (_, { signal }) => {
        await once(signal, 'abort')
        await new Promise(setImmediate)
        tidied = true
      },
      deaf: () => new Promise(() => begun.resolve()),
    },
    { log },
  )
  const calls = Promise.allSettled([call(home, 'tidy'), call(home, 'deaf')])
  await begun.promise
  await control[Symbol.asyncDispose]()
  assert.ok(tidied)
  assert.match(warnings.join(''), /did not end when told to/)
  await calls
})

test('a client that wants nothing is sent away, one that waits for an answer is not', async (t) => {
  const { method, begun } = endless()
  const home = await daemon(t, { watch: method }, { idleMs: 50 })
  const [idle, waiting] = [await rawClient(t, home), await rawClient(t, home)]
  waiting.write('{"id":1,"method":"watch"}\n')
  const { emit } = await begun
  idle.resume()
  await once(idle, 'end', { signal: soon() })
  // The bystander has been silent for as long.
  const again = await rawClient(t, home)
  again.resume()
  await once(again, 'end', { signal: soon() })
  emit({ event: 'still here' })
  const [line] = await once(waiting, 'data')
  assert.equal(String(line), '{"id":1,"event":{"event":"still here"}}\n')
})

const garbage: [name: string, bytes: string | Buffer, sentence: RegExp][] = [
  ['garbage', Buffer.from([0, 255, 10, 1, 2]), /not UTF-8/],
  ['HTTP', 'GET / HTTP/1.1\r\nHost: x\r\n\r\n', /not JSON/],
  ['no request', '{"id":1}\n', /no usable method/],
  ['a line without end', Buffer.alloc(MAX_REQUEST_BYTES + 1, 'x'), /more than 65536 bytes/],
]
for (const [name, bytes, sentence] of garbage)
  test(`${name} is answered with an error and the end`, async (t) => {
    const home = await daemon(t)
    const client = await rawClient(t, home)
    client.write(bytes)
    const [line, ...more] = (await allLines(client)) as {
      id: null
      error: { code: string; message: string }
    }[]
    assert.deepEqual([line?.id, line?.error.code, more], [null, 'ERR_PROTOCOL', []])
    assert.match(line?.error.message ?? '', sentence)
    assert.equal(await call(home), 'pong')
  })

test('a line that goes on for ever is not kept', async (t) => {
  const home = await daemon(t)
  const client = await rawClient(t, home)
  let sent = 0
  const chunk = Buffer.alloc(16 * 1024, 'x')
  const more = () => {
    while (!client.destroyed && sent < 64 * 1024 * 1024 && client.write(chunk)) sent += chunk.length
  }
  client.on('drain', more)
  more()
  await closed(client)
  assert.ok(sent < 8 * 1024 * 1024, `${sent} bytes were taken`)
  assert.equal(await call(home), 'pong')
})

test('a thousand connections: sixteen are served, the rest sent away, and then it works as before', async (t) => {
  const home = await daemon(t)
  const served = await Promise.all(Array.from({ length: 16 }, () => rawClient(t, home)))
  await assert.rejects(call(home), (error: FarportError) =>
    ['ERR_IN_USE', 'ERR_PROTOCOL'].includes(error.code),
  )
  const crowd = Array.from({ length: 1000 }, () => {
    return closed(connect(join(home, 'control.sock')).on('error', () => {}))
  })
  await Promise.all(crowd)
  for (const [id, client] of served.entries()) {
    client.write(`{"id":${id},"method":"ping"}\n`)
    const [line] = await once(client, 'data')
    assert.deepEqual(JSON.parse(String(line)), { id, result: 'pong' })
  }
  await Promise.all(served.map((client) => closed(client.end())))
  await assertEventually(async () => (await call(home).catch(() => undefined)) === 'pong')
})

test('one client too many is told why', async (t) => {
  const home = await daemon(t)
  for (let n = 0; n < 16; n++) await rawClient(t, home)
  const [line] = (await allLines(await rawClient(t, home))) as [{ id: null; error: { code: string } }]
  assert.deepEqual([line.id, line.error.code], [null, 'ERR_IN_USE'])
})

test('a client that does not read is cut, and its method told', async (t) => {
  const told = Promise.withResolvers<number>()
  const home = await daemon(t, {
    flood: async (_, { emit, signal }) => {
      let sent = 0
      for (; !signal.aborted && sent < 64 * 1024 * 1024; sent += 1000) {
        emit({ event: 'x'.repeat(1000) })
        if (sent % 100_000 === 0) await new Promise(setImmediate)
      }
      told.resolve(sent)
    },
  })
  const client = await rawClient(t, home)
  client.pause()
  client.write('{"id":1,"method":"flood"}\n')
  const sent = await told.promise
  // Two messages' worth here, what the kernel takes for a Unix socket, and what one turn of the loop above adds.
  assert.ok(sent < 4 * 1024 * 1024, `${sent} bytes were queued`)
  assert.equal(await call(home), 'pong')
})

test('the longest messages fit; longer ones are refused, and the connection lives on', async (t) => {
  const home = await daemon(t, {
    length: async (params) => (params as string).length,
    fill: async (params) => 'x'.repeat(params as number),
  })
  const question = MAX_REQUEST_BYTES - '{"id":1,"method":"length","params":""}'.length
  assert.equal(await call(home, 'length', 'x'.repeat(question)), question)
  await assert.rejects(call(home, 'length', 'x'.repeat(question + 1)), code('ERR_PROTOCOL', /too long/))
  const answer = MAX_ANSWER_BYTES - '{"id":1,"result":""}'.length
  assert.equal(((await call(home, 'fill', answer)) as string).length, answer)
  await assert.rejects(call(home, 'fill', answer + 1), code('ERR_PROTOCOL', /too long/))
})

const answers: [name: string, bytes: string | Buffer, code: string, sentence: RegExp][] = [
  ['nothing', '', 'ERR_PROTOCOL', /ended before it answered/],
  ['half an answer', '{"id":1,"result":', 'ERR_PROTOCOL', /ended before it answered/],
  ['garbage', 'hello\n', 'ERR_PROTOCOL', /not JSON/],
  ['an answer to something else', '{"id":2,"result":1}\n', 'ERR_PROTOCOL', /nobody asked/],
  ['a line without end', Buffer.alloc(MAX_ANSWER_BYTES + 1, 'x'), 'ERR_PROTOCOL', /more than 1048576 bytes/],
  [
    'an error of another version',
    '{"id":1,"error":{"code":"ERR_NEW","message":"m"}}\n',
    'ERR_INTERNAL',
    /^m$/,
  ],
  [
    'an error about the connection',
    '{"id":null,"error":{"code":"ERR_IN_USE","message":"m"}}\n',
    'ERR_IN_USE',
    /^m$/,
  ],
]
for (const [name, bytes, expected, sentence] of answers)
  test(`a daemon that answers ${name}`, async (t) => {
    const home = await newHome(t)
    const server = createServer((socket) => {
      socket.on('error', () => {}).once('data', () => socket.end(bytes))
    })
    t.after(() => server.close())
    await once(server.listen(join(home, 'control.sock')), 'listening')
    await assert.rejects(call(home), code(expected, sentence))
  })

/** A farport in a process of its own, which says when it listens and then does `next`. */
function runDaemon(home: string, next: string) {
  const from = (path: string) => JSON.stringify(new URL(`../../src/${path}`, import.meta.url).href)
  const script = `
    import { once } from 'node:events'
    import { listenControl } from ${from('daemon/control.ts')}
    import { createLog } from ${from('log.ts')}
    const control = await listenControl(process.argv[1], { ping: async () => 'child' }, { log: createLog('silent') })
    console.log('ready')
    ${next}`
  return spawn(process.execPath, ['--input-type=module', '-e', script, home], {
    stdio: ['pipe', 'pipe', 'inherit'],
    timeout: 30_000,
  })
}

/** A farport that was killed without warning. */
async function killedDaemon(home: string): Promise<void> {
  const child = runDaemon(home, '')
  const exit = once(child, 'exit')
  await once(child.stdout, 'data', { signal: soon() })
  assert.equal(await call(home), 'child')
  child.kill('SIGKILL')
  await exit
}

/** What a killed farport leaves, without the process: closing a server removes the name it listened on, and no other. */
async function leaveStaleSocket(directory: string, name = 'control.sock'): Promise<void> {
  const server = createServer().listen(join(directory, 'x'))
  await once(server, 'listening')
  await link(join(directory, 'x'), join(directory, name))
  await new Promise((resolve) => server.close(resolve))
}

async function assertEventually(condition: () => Promise<boolean>): Promise<void> {
  const deadline = soon()
  while (!(await condition())) {
    deadline.throwIfAborted()
    await new Promise(setImmediate)
  }
}
