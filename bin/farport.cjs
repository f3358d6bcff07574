#!/usr/bin/env node
// Starts farport on a Node that fits. Machines come with Node 18 or 20, so the package brings its own and this file, which
// any Node can read, hands over to it.
'use strict'

const fs = require('node:fs')
const path = require('node:path')
// Bundled where it was installed, as it is in a checkout.
const bundled = path.join(__dirname, '..', 'lib', 'main.js')
const main = fs.existsSync(bundled) ? bundled : path.join(__dirname, '..', 'src', 'cli', 'main.ts')
const major = Number(process.versions.node.split('.')[0])

if (major >= 24 && major < 26) {
  void import(require('node:url').pathToFileURL(main).href)
} else {
  let runtime
  try {
    runtime = require.resolve('node/bin/node')
  } catch {
    process.stderr.write(
      `farport needs Node 24 and this is ${process.versions.node}; its own runtime is missing: run \`npm install\` again where farport is installed.\n`,
    )
    process.exit(7)
  }
  const child = require('node:child_process').spawn(runtime, [main, ...process.argv.slice(2)], {
    stdio: 'inherit',
  })
  // The child decides what a signal means; this process only waits for its answer.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
  child.on('exit', (code, signal) => (signal ? process.kill(process.pid, signal) : process.exit(code)))
}
