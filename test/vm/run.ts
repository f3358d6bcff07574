/**
 * `npm run test:vm`: the Linux port on real drivers, in a throw-away machine of QEMU's. Its root is this system's, by 9p and
 * read-only; what the guest writes stays in its memory. Two FTDI adapters of QEMU's (ftdi_sio) are joined to each other, and
 * two 16550 UARTs; their cables carry data alone. Two more FTDI adapters are ours, see ftdi-pair.ts, and have modem lines,
 * breaks and errors.
 *
 * Needs root (9p of the root) and a Debian-like system with qemu-system-x86. The kernel and busybox are Debian's packages,
 * downloaded by apt and unpacked, not installed, into the user's cache.
 */
import { execFileSync, spawn } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const FTDI_PAIR = fileURLToPath(import.meta.resolve('./ftdi-pair.ts'))
const DRIVER_TESTS = fileURLToPath(import.meta.resolve('./drivers.vm.ts'))
const DEADLINE_MS = 600_000
const QEMU = 'qemu-system-x86_64'
const APT_CACHE = 'apt-cache'
const APT_GET = 'apt-get'
const DPKG = 'dpkg'
const MODULES = ['virtio_pci', '9pnet_virtio', '9p', 'overlay', 'xhci_pci', 'ftdi_sio', 'vhci_hcd']
const EXIT_MARK = 'farport-vm: exit '

/** The guest's ports, in pairs that are joined. ttyS0 is the console, ttyS1 to ttyS3 are the PC's own. */
const PAIRS = [
  { driver: 'ftdi_sio', paths: '/dev/ttyUSB0,/dev/ttyUSB1', cable: 'data' },
  { driver: '8250', paths: '/dev/ttyS4,/dev/ttyS5', cable: 'data' },
  { driver: 'ftdi_sio with modem lines', paths: '/dev/ttyUSB2,/dev/ttyUSB3', cable: 'modem' },
]

/** A kernel, its modules and busybox, unpacked below `folder`. Answers the kernel's version. */
function unpackKernel(folder: string): string {
  const modules = join(folder, 'lib/modules')
  if (!existsSync(join(folder, 'complete'))) {
    const downloads = mkdtempSync(join(tmpdir(), 'farport-vm-'))
    try {
      const depends = execFileSync(APT_CACHE, ['depends', 'linux-image-amd64'], { encoding: 'utf8' })
      const name = /Depends: (linux-image-\S+)/.exec(depends)?.[1]
      if (name === undefined) throw new Error('apt knows no linux-image-amd64: run apt-get update.')
      execFileSync(APT_GET, ['download', '-q', name, 'busybox-static'], {
        cwd: downloads,
        stdio: 'inherit',
      })
      mkdirSync(folder, { recursive: true })
      for (const deb of readdirSync(downloads))
        execFileSync(DPKG, ['-x', join(downloads, deb), folder], { stdio: 'inherit' })
      const [version = ''] = readdirSync(modules)
      execFileSync(busybox(folder), ['depmod', '-b', folder, version], { stdio: 'inherit' })
      writeFileSync(join(folder, 'complete'), '')
    } finally {
      rmSync(downloads, { recursive: true })
    }
  }
  const [version] = readdirSync(modules)
  if (version === undefined) throw new Error(`${folder} holds no kernel: delete it and try again.`)
  return version
}

function busybox(folder: string): string {
  return ['bin/busybox', 'usr/bin/busybox'].map((path) => join(folder, path)).find(existsSync) ?? 'busybox'
}

/** The files of the named modules and all they need, in the order to load them (modules.dep: "file: needs needs"). */
function modulesInOrder(folder: string, version: string): string[] {
  const base = join(folder, 'lib/modules', version)
  const needs = new Map<string, string[]>()
  for (const line of readFileSync(join(base, 'modules.dep'), 'utf8').split('\n')) {
    const [file, rest = ''] = line.split(':')
    if (file) needs.set(file, rest.split(' ').filter(Boolean))
  }
  const order = new Set<string>()
  const add = (file: string): void => {
    for (const need of [...(needs.get(file) ?? [])].reverse()) add(need)
    order.add(file)
  }
  for (const name of MODULES) {
    const file = [...needs.keys()].find((path) => basename(path, '.ko').replaceAll('-', '_') === name)
    if (file !== undefined) add(file) // else built into the kernel
  }
  return [...order].map((file) => join(base, file))
}

/** The guest's first and only program: loads drivers, goes to the root by 9p, runs the tests, powers off. */
function initScript(modules: string[]): string {
  const inRoot = 'chroot /root /usr/bin/env -i HOME=/run PATH=/usr/sbin:/usr/bin:/sbin:/bin'
  const runs = PAIRS.map(
    ({ driver, paths, cable }) => `
echo "farport-vm: on ${driver}"
${inRoot} FARPORT_VM_PAIR=${paths} FARPORT_VM_CABLE=${cable} "${process.execPath}" --test --test-timeout=150000 "${DRIVER_TESTS}" </root/dev/null
echo "${EXIT_MARK}$?"`,
  )
  return `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in ${modules.map((path) => basename(path)).join(' ')}; do insmod /modules/$module; done
mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=262144 root /low
mount -t tmpfs rw /rw; mkdir /rw/upper /rw/work
mount -t overlay -o lowerdir=/low,upperdir=/rw/upper,workdir=/rw/work overlay /root
for folder in proc sys dev; do mount --move /$folder /root/$folder; done
mount -t tmpfs run /root/run; mount -t tmpfs tmp /root/tmp
mkdir -p /root/dev/pts; mount -t devpts devpts /root/dev/pts
ifconfig lo up
await() { for i in $(seq 100); do [ -e /root/dev/$1 ] && return; usleep 100000; done; }
await ttyUSB1
ln -s /root/dev/null /dev/null # what runs in the background reads it
${inRoot} "${process.execPath}" "${FTDI_PAIR}" </root/dev/null &
await ttyUSB3
${runs.join('\n')}
poweroff -f
`
}

function packInitramfs(folder: string, work: string, version: string): string {
  const tree = join(work, 'initramfs')
  const modules = modulesInOrder(folder, version)
  for (const name of ['bin', 'modules', 'proc', 'sys', 'dev', 'low', 'rw', 'root'])
    mkdirSync(join(tree, name), { recursive: true })
  copyFileSync(busybox(folder), join(tree, 'bin/busybox'))
  for (const module of modules) copyFileSync(module, join(tree, 'modules', basename(module)))
  writeFileSync(join(tree, 'init'), initScript(modules))
  chmodSync(join(tree, 'init'), 0o755)
  const pack = `find . | "${busybox(folder)}" cpio -o -H newc 2>/dev/null > ../initramfs.new`
  execFileSync('sh', ['-c', pack], { cwd: tree })
  renameSync(join(work, 'initramfs.new'), join(work, 'initramfs.cpio'))
  return join(work, 'initramfs.cpio')
}

function qemuArguments(folder: string, work: string, version: string): string[] {
  const pipe = (name: string) => [
    ['-chardev', `socket,id=${name}0,path=${join(work, name)},server=on,wait=off`],
    ['-chardev', `socket,id=${name}1,path=${join(work, name)}`],
  ]
  return [
    ['-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none', '-machine', 'pc', '-m', '1024'],
    ['-accel', 'tcg,tb-size=256', '-cpu', 'Nehalem'],
    ['-kernel', join(folder, `boot/vmlinuz-${version}`), '-initrd', packInitramfs(folder, work, version)],
    ['-append', 'console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off 8250.nr_uarts=16'],
    ['-fsdev', 'local,id=root,path=/,security_model=none,readonly=on,multidevs=remap'],
    ['-device', 'virtio-9p-pci,fsdev=root,mount_tag=root'],
    ['-chardev', 'stdio,id=console,signal=off', '-device', 'isa-serial,chardev=console,index=0'],
    ['-device', 'qemu-xhci,id=usb'],
    ...pipe('ftdi'),
    ...[0, 1].map((i) => [
      '-device',
      `usb-serial,chardev=ftdi${i},bus=usb.0,always-plugged=on,serial=VM${i}`,
    ]),
    ...pipe('uart'),
    ...[0, 1].map((i) => ['-device', `pci-serial,chardev=uart${i}`]),
  ].flat()
}

function checkNeeds(): void {
  if (process.getuid?.() !== 0) throw new Error('test:vm must run as root: the guest reads this system.')
  for (const program of [QEMU, APT_CACHE, APT_GET, DPKG])
    try {
      execFileSync(program, ['--version'], { stdio: 'ignore' })
    } catch (cause) {
      throw new Error(`test:vm needs ${program}: apt-get install qemu-system-x86 (on Debian 12).`, { cause })
    }
}

/** Boots, shows what the guest says, and answers how many of its runs passed. */
async function boot(folder: string): Promise<number> {
  const work = mkdtempSync(join(tmpdir(), 'farport-vm-'))
  try {
    const version = unpackKernel(folder)
    const qemu = spawn(QEMU, qemuArguments(folder, work, version), {
      stdio: ['ignore', 'pipe', 'inherit'],
      timeout: DEADLINE_MS,
    })
    let passed = 0
    for await (const line of createInterface({ input: qemu.stdout })) {
      process.stdout.write(`${line.trimEnd()}\n`)
      if (line.trimEnd().endsWith(`${EXIT_MARK}0`)) passed++
    }
    return passed
  } finally {
    rmSync(work, { recursive: true })
  }
}

checkNeeds()
const cache = process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache')
const passed = await boot(join(cache, 'farport/test-vm'))
if (passed !== PAIRS.length) {
  process.stderr.write(`test:vm: ${passed} of ${PAIRS.length} runs passed.\n`)
  process.exitCode = 1
}
