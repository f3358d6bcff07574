// Makes node_modules match package-lock.json, Node 24 included. Runs before `npm test`, `npm run demo` and their like,
// on whatever Node the machine has, so it is written in CommonJS.
'use strict'

const fs = require('node:fs')
const path = require('node:path')
const crypto = require('node:crypto')
const spawnSync = require('node:child_process').spawnSync

const root = path.join(__dirname, '..')
const modules = path.join(root, 'node_modules')
const stamp = path.join(modules, '.farport-setup')

function wanted() {
  const hash = crypto.createHash('sha256')
  hash.update(fs.readFileSync(path.join(root, 'package-lock.json')))
  return `${hash.digest('hex')} ${process.platform}-${process.arch}`
}

function installed() {
  try {
    fs.accessSync(path.join(modules, '.bin', 'node'))
    return fs.readFileSync(stamp, 'utf8')
  } catch {
    return ''
  }
}

if (installed() !== wanted()) {
  process.stderr.write('farport: installing what this checkout needs (npm install)\n')
  // npm tells its scripts where it is itself; the same npm is asked again, so any version will do.
  const npm = process.env.npm_execpath
  const command = npm ? process.execPath : 'npm'
  // Not `npm ci`: it refuses a lock file that lacks optional packages of other platforms, and npm writes such files where a
  // registry does not have them all. With --no-save the lock file is obeyed and left alone all the same.
  const args = (npm ? [npm] : []).concat([
    'install',
    '--no-save',
    '--no-audit',
    '--no-fund',
    '--loglevel=error',
  ])
  const run = spawnSync(command, args, { cwd: root, stdio: ['ignore', 2, 2] })
  if (run.status !== 0) {
    process.stderr.write('farport: npm install failed; the lines above say why. Run it here to try again.\n')
    process.exit(run.status || 1)
  }
  fs.writeFileSync(stamp, wanted())
}
