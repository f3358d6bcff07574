import assert from 'node:assert/strict'
import {
  existsSync,
  lutimesSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { loadLibc } from '../../src/device/libc.ts'
import { placeLink, removeLink } from '../../src/endpoints/pty-link.ts'

let dir = ''
let link = ''

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'farport-link-'))
  link = join(dir, 'gps')
})

afterEach(() => rmSync(dir, { recursive: true }))

test('a link is made, and removed', () => {
  placeLink(link, '/dev/pts/7000')
  assert.equal(readlinkSync(link), '/dev/pts/7000')
  removeLink(link, '/dev/pts/7000')
  assert.deepEqual(readdirSync(dir), [])
})

test('a file of the same name is refused and left alone', () => {
  writeFileSync(link, 'mine')
  assert.throws(() => placeLink(link, '/dev/pts/7000'), { code: 'ERR_IN_USE', message: /gps exists/ })
  assert.equal(readFileSync(link, 'utf8'), 'mine')
})

test('a link to something else is refused and left alone', () => {
  symlinkSync('/dev/null', link)
  assert.throws(() => placeLink(link, '/dev/pts/7000'), { code: 'ERR_IN_USE', message: /in use/ })
  assert.equal(readlinkSync(link), '/dev/null')
})

test('a link that leads nowhere is replaced, and nothing else is left behind', () => {
  symlinkSync('/dev/pts/6999', link)
  placeLink(link, '/dev/pts/7000')
  assert.deepEqual(readdirSync(dir), ['gps'])
  assert.equal(readlinkSync(link), '/dev/pts/7000')
})

test('our own last link is replaced', () => {
  symlinkSync('/dev/null', link)
  placeLink(link, '/dev/pts/7000', '/dev/null')
  assert.equal(readlinkSync(link), '/dev/pts/7000')
})

test('a directory that does not exist is named', () => {
  assert.throws(() => placeLink(join(dir, 'no/gps'), '/dev/pts/7000'), {
    code: 'ERR_USAGE',
    message: new RegExp(`no directory ${dir}/no$`),
  })
})

test('a link that somebody else has made since is not removed', () => {
  symlinkSync('/dev/pts/6999', link)
  removeLink(link, '/dev/pts/7000')
  assert.equal(readlinkSync(link), '/dev/pts/6999')
})

test('removing what is gone, or is a file by now, does nothing', () => {
  removeLink(link, '/dev/pts/7000')
  writeFileSync(link, 'mine')
  removeLink(link, '/dev/pts/7000')
  assert.ok(existsSync(link))
})

test('a link to a PTY is in use, unless the PTY is younger than it', {
  skip: process.platform === 'linux' ? false : 'devpts is Linux',
}, () => {
  const libc = loadLibc()
  const { fd, slavePath } = libc.openPtyMaster()
  try {
    symlinkSync(slavePath, link)
    assert.throws(() => placeLink(link, '/dev/pts/7000'), { code: 'ERR_IN_USE' })
    lutimesSync(link, new Date(0), new Date(0))
    placeLink(link, '/dev/pts/7000')
    assert.equal(readlinkSync(link), '/dev/pts/7000')
  } finally {
    libc.close(fd)
  }
})
