import type { CommandLine } from './command-lines.ts'
import type { Draft, Place, PortDraft, Value } from './draft.ts'
import { type Address, farPort, localAddress, parseAddress } from './far-port.ts'
import { splitOutside } from './gensio.ts'
import { type LineWish, lineText, plainLine } from './line-wish.ts'
import { durationOf, takeFlow } from './ser2net-options.ts'

interface SocatOption {
  readonly name: string
  readonly value: string
  readonly text: string
}

/** One of socat's two ends. */
type End = { readonly options: readonly SocatOption[]; readonly text: string } & (
  | { readonly type: 'pty' }
  | { readonly type: 'device'; readonly path: string }
  | { readonly type: 'connect'; readonly address: Address; readonly encrypted: boolean }
  | { readonly type: 'listen'; readonly port: string; readonly encrypted: boolean }
  | { readonly type: 'stdio' }
  | { readonly type: 'other' }
)

const CONNECT =
  /^(?:(tcp|tcp4|tcp6|tcp-connect|tcp4-connect|tcp6-connect)|(openssl|ssl|openssl-connect|ssl-connect))$/
const LISTEN =
  /^(?:(tcp-listen|tcp-l|tcp4-listen|tcp4-l|tcp6-listen|tcp6-l)|(openssl-listen|ssl-l|openssl-l|ssl-listen))$/
/** What socat needs to be told and farport does by itself. */
const BY_ITSELF = new Set(
  'raw rawer echo icanon isig opost onlcr icrnl waitslave wait-slave pty-wait-slave pty-interval unlink-close unlink-early fork reuseaddr reuseport forever interval retry keepalive keepidle keepintvl keepcnt nodelay tcp-nodelay clocal cread min vmin time vtime nonblock noctty o-noctty ctty sourceport cs8 crnl brkint imaxbel iexten echoctl echoe echok echoke hupcl ixany'.split(
    ' ',
  ),
)
/** Flags before the addresses that have a word behind them. */
const WITH_WORD = /^-(T|t|b|lf|lp|L|W|r|R|S|lm|ly|ls|lh)$/

/** `socat pty,link=/dev/vgps,raw tcp:host:7000` and its like, in either order. */
export function readSocat({ line, words, text }: CommandLine, draft: Draft): void {
  const place = { line, what: text }
  const ends: End[] = []
  let idleS: SocatOption | undefined
  for (let i = 0; i < words.length; i++) {
    const word = words[i] as string
    if (ends.length === 0 && /^-./.test(word)) {
      const own = /^-T(\d.*)?$/.exec(word)
      const value = WITH_WORD.test(word) ? (words[++i] ?? '') : (own?.[1] ?? '')
      if (own !== null) idleS = { name: '-T', value, text: `-T ${value}` }
      else if (/^-(u|U)$/.test(word))
        draft.leaveOut({ line, what: word }, 'a port goes both ways; watch: true in a link only looks')
      else if (/^-[vxrR]/.test(word))
        draft.leaveOut({ line, what: word }, 'farport shows no bytes in its log')
    } else ends.push(endOf(word))
  }
  const [first, second] = ends
  if (first === undefined || second === undefined || ends.length > 2) {
    draft.leaveOut(place, 'farport reads socat lines with two addresses')
    return
  }
  let joined = join(first, second, place, draft)
  if (joined === 'not ours') joined = join(second, first, place, draft)
  if (joined === 'not ours') {
    draft.leaveOut(place, 'is neither a serial port for others nor a way to one: farport does these two')
  } else if (idleS !== undefined) {
    const at = { line, what: idleS.text }
    if (joined === 'done') draft.leaveOut(at, 'a link stays; the agent ends idle ones')
    else if (!(Number(idleS.value) > 0)) draft.leaveOut(at, 'is no number of seconds')
    else joined.set('idle-timeout', durationOf(Number(idleS.value)), at)
  }
}

/** Takes the two over in this order, if they are something for farport in it; the port where it is one to share. */
function join(near: End, far: End, place: Place, draft: Draft): PortDraft | 'done' | 'not ours' {
  if (near.type === 'device' && far.type === 'listen') {
    const port = draft.addPort(near.path.replace(/^.*\//, ''), near.path, place, [place.what])
    if (port === undefined) return 'done'
    const wish: LineWish = plainLine()
    const isSaid = takeTermios(near, wish, place, draft)
    const at = { line: place.line, what: near.text }
    if (isSaid) port.set('line', lineText(wish), at)
    takeFlow(port, wish, at)
    leaveRest(far, new Set(), place, draft)
    return port
  }
  if (far.type !== 'connect') return 'not ours'
  if (near.type === 'stdio') {
    draft.leaveOut(place, `is done in the foreground: farport connect ${farPort(far.address)} --stdio`)
    return 'done'
  }
  const local = localEnd(near, place, draft)
  if (local === undefined) return near.type === 'pty' || near.type === 'listen' ? 'done' : 'not ours'
  draft.addLink({ port: farPort(far.address), ...local }, place, [place.what])
  leaveRest(far, new Set(), place, draft)
  return 'done'
}

/** A link's local end; undefined where it can be none, which is told unless it is no business of ours. */
function localEnd(near: End, place: Place, draft: Draft): Record<string, Value> | undefined {
  const value = (...names: string[]) => near.options.findLast(({ name }) => names.includes(name))?.value
  switch (near.type) {
    case 'pty': {
      const link = value('link', 'symbolic-link')
      if (link === undefined || !link.startsWith('/')) {
        draft.leaveOut(place, 'a PTY of farport has a name that stays, by its whole path: link=/…')
        return undefined
      }
      const mode = value('mode', 'perm')
      const group = value('group', 'gid', 'group-late')
      const taken = new Set(['link', 'symbolic-link', 'mode', 'perm', 'group', 'gid', 'group-late'])
      const wish = plainLine()
      const isSaid = takeTermios(near, wish, place, draft, taken)
      const octal = mode !== undefined && /^0?[0-7]{3}$/.test(mode) ? mode : undefined
      if (mode !== undefined && octal === undefined)
        draft.leaveOut({ line: place.line, what: `mode=${mode}` }, 'is three octal digits')
      // A PTY passes on the speed that its program asks for, but neither data bits nor parity.
      const line = isSaid && (wish.dataBits !== '8' || wish.parity !== 'N') ? { line: lineText(wish) } : {}
      return {
        pty: link,
        ...line,
        ...(octal !== undefined && { mode: octal }),
        ...(group !== undefined && { group }),
      }
    }
    case 'listen': {
      const raw = localAddress(near.port)
      if (raw === undefined) draft.leaveOut(place, `“${near.port}” is no number of a TCP port`)
      leaveRest(near, new Set(), place, draft)
      return raw === undefined ? undefined : { raw }
    }
    case 'device': {
      const wish = plainLine()
      const isSaid = takeTermios(near, wish, place, draft)
      leaveFlow(near, wish, place, draft)
      return { serial: near.path, ...(isSaid && { line: lineText(wish) }) }
    }
    case 'stdio':
    case 'connect':
    case 'other':
      return undefined
  }
}

/** Options that are about a serial line. True when there were any. */
function takeTermios(
  end: End,
  wish: LineWish,
  place: Place,
  draft: Draft,
  taken: Iterable<string> = [],
): boolean {
  const words = new Set<string>()
  for (const { name, value } of end.options) {
    const isOn = !/^0$/.test(value)
    const speed = /^b([1-9]\d{1,8})$/.exec(name)?.[1] ?? (/^[io]?speed$/.test(name) ? value : undefined)
    const bits = /^cs([5-8])$/.exec(name)?.[1]
    if (speed !== undefined && /^[1-9]\d{0,8}$/.test(speed)) wish.baudRate = Number(speed)
    else if (bits !== undefined) wish.dataBits = bits as LineWish['dataBits']
    else if (name === 'parenb') wish.parity = isOn ? (wish.parity === 'O' ? 'O' : 'E') : 'N'
    else if (name === 'parodd') wish.parity = isOn ? 'O' : wish.parity === 'O' ? 'E' : wish.parity
    else if (name === 'cstopb') wish.stopBits = isOn ? '2' : '1'
    else if (name === 'crtscts') wish.rtscts = isOn
    else if (name === 'ixon' || name === 'ixoff') wish.xonxoff = isOn
    else continue
    words.add(name)
  }
  leaveRest(end, new Set([...words, ...taken]), place, draft)
  // Without parenb, parodd says nothing.
  if (wish.parity === 'O' && !end.options.some(({ name }) => name === 'parenb')) wish.parity = 'N'
  return words.size > 0
}

function leaveFlow(end: End, { rtscts, xonxoff }: LineWish, { line }: Place, draft: Draft): void {
  if (rtscts || xonxoff)
    draft.leaveOut({ line, what: end.text }, 'a serial link takes its flow control from the remote port')
}

function leaveRest(end: End, taken: ReadonlySet<string>, { line }: Place, draft: Draft): void {
  if ((end.type === 'connect' || end.type === 'listen') && end.encrypted)
    draft.leaveOut(
      { line, what: end.text },
      'farport encrypts everything by itself and knows machines by their keys: pair them with farport invite and farport pair',
    )
  const encrypted = 'encrypted' in end && end.encrypted
  for (const { name, text } of end.options) {
    if (taken.has(name) || BY_ITSELF.has(name)) continue
    if (
      encrypted &&
      /^(cert|key|cafile|capath|verify|cipher|method|commonname|cn|snihost|openssl-.*)$/.test(name)
    )
      continue
    draft.leaveOut({ line, what: text }, whyNot(name))
  }
}

function whyNot(name: string): string {
  if (/^(user|user-late|owner|uid|umask|perm-late|mode-late|mode|perm|group)$/.test(name))
    return 'who may open it is said by mode: and group: of a PTY link'
  if (/^(bind|range|tcpwrap|su|lowport|max-children|interface|so-bindtodevice)$/.test(name))
    return 'who may reach a port stands in trusted_peers; a local end listens on 127.0.0.1'
  if (/^(lock|lockfile|flock.*|waitlock)$/.test(name)) return 'farport locks the device by itself'
  return 'farport has nothing like it'
}

function endOf(word: string): End {
  const [head = '', ...parts] = splitOutside(word, ',')
  const options = parts.map((text) => {
    const [, name = '', value = ''] = /^([^=]*)(?:=([\s\S]*))?$/.exec(text) ?? []
    return { name: name.toLowerCase(), value, text }
  })
  const common = { options, text: head }
  if (head === '-' || /^stdio$/i.test(head)) return { ...common, type: 'stdio' }
  if (head.startsWith('/')) return { ...common, type: 'device', path: head }
  const [, type = '', rest = ''] = /^([^:]*):?([\s\S]*)$/.exec(head) ?? []
  const key = type.toLowerCase()
  if (key === 'pty') return { ...common, type: 'pty' }
  if (/^(file|open|gopen)$/.test(key) && rest.startsWith('/'))
    return { ...common, type: 'device', path: rest }
  const connect = CONNECT.exec(key)
  const address = connect && parseAddress(rest)
  if (address) return { ...common, type: 'connect', address, encrypted: connect[2] !== undefined }
  const listen = LISTEN.exec(key)
  if (listen) return { ...common, type: 'listen', port: rest, encrypted: listen[2] !== undefined }
  return { ...common, type: 'other' }
}
