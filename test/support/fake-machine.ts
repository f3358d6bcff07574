import { mkdir, mkdtemp, readdir, readlink, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, dirname, join, relative } from 'node:path'
import { listPorts } from '../../src/device/discovery.ts'

/** A made-up /sys and /dev, with folders, attributes and relative links as the kernel and udev lay them out. */
export class FakeMachine {
  readonly root: string
  readonly sys: string
  readonly dev: string

  constructor(root: string) {
    this.root = root
    this.sys = join(root, 'sys')
    this.dev = join(root, 'dev')
  }

  static async make(): Promise<FakeMachine> {
    const machine = new FakeMachine(await mkdtemp(join(tmpdir(), 'farport-')))
    await mkdir(join(machine.sys, 'class/tty'), { recursive: true })
    await mkdir(machine.dev)
    return machine
  }

  async attributes(device: string, values: Record<string, string>): Promise<void> {
    await mkdir(join(this.sys, 'devices', device), { recursive: true })
    for (const [name, value] of Object.entries(values))
      await writeFile(join(this.sys, 'devices', device, name), `${value}\n`)
  }

  async link(from: string, to: string): Promise<void> {
    await mkdir(dirname(join(this.root, from)), { recursive: true })
    await symlink(relative(dirname(join(this.root, from)), join(this.root, to)), join(this.root, from))
  }

  /** A tty as the kernel shows it: below its device where it has one, and linked from class/tty. */
  async tty(
    name: string,
    device: string,
    options: { hardware?: boolean; type?: string } = {},
  ): Promise<void> {
    const { hardware = true, type } = options
    const folder = hardware ? `${device}/tty/${name}` : `virtual/tty/${name}`
    await this.attributes(folder, { dev: '4:64', ...(type !== undefined && { type }) })
    if (hardware) await this.link(`sys/devices/${folder}/device`, `sys/devices/${device}`)
    await this.link(`sys/class/tty/${name}`, `sys/devices/${folder}`)
    await writeFile(join(this.dev, name.replaceAll('!', '-')), '')
  }

  async driver(device: string, bus: string, name: string): Promise<void> {
    await mkdir(join(this.sys, 'bus', bus, 'drivers', name), { recursive: true })
    await this.link(`sys/devices/${device}/driver`, `sys/bus/${bus}/drivers/${name}`)
  }

  /** A USB device with one interface. */
  async usb(bus: string, port: string, driver: string, identity: Record<string, string>): Promise<string> {
    const hub = `pci0000:00/0000:00:14.0/${bus}`
    await this.attributes(hub, { idVendor: '1d6b', idProduct: '0002', product: 'xHCI Host Controller' })
    const device = `${hub}/${port}`
    await this.attributes(device, identity)
    await this.attributes(`${device}/${port}:1.0`, { bInterfaceNumber: '00' })
    await this.driver(device, 'usb', 'usb')
    await this.driver(`${device}/${port}:1.0`, 'usb', driver)
    return `${device}/${port}:1.0`
  }

  /**
   * An adapter in a socket such as `1-2`, with its tty and, where a name for it is given, its by-id link. `target` is what
   * its device file leads to, since a PTY is all there is to open.
   */
  async plug(
    socket: string,
    tty: string,
    adapter: { vendorId?: string; productId?: string; serial?: string; byId?: string; target?: string } = {},
  ): Promise<void> {
    const { vendorId = '0403', productId = '6001', serial, byId, target } = adapter
    const at = await this.usb('usb1', socket, 'ftdi_sio', {
      idVendor: vendorId,
      idProduct: productId,
      ...(serial !== undefined && { serial }),
    })
    await this.tty(tty, `${at}/${tty}`)
    if (target !== undefined) {
      await rm(join(this.dev, tty))
      await symlink(target, join(this.dev, tty))
    }
    if (byId !== undefined) await this.link(`dev/serial/by-id/${byId}`, `dev/${tty}`)
  }

  async unplug(socket: string, tty: string): Promise<void> {
    const byId = join(this.dev, 'serial/by-id')
    for (const link of await readdir(byId).catch(() => []))
      if (basename(await readlink(join(byId, link))) === tty) await rm(join(byId, link))
    await rm(join(this.dev, tty))
    await rm(join(this.sys, 'class/tty', tty))
    await rm(join(this.sys, 'devices/pci0000:00/0000:00:14.0/usb1', socket), { recursive: true })
  }

  list() {
    return listPorts({ sys: this.sys, dev: this.dev, platform: 'linux' })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.root, { recursive: true })
  }
}
