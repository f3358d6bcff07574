/**
 * The device's end of USB/IP, the protocol in which Linux's vhci_hcd asks a USB device that is elsewhere, as the kernel
 * describes it in Documentation/usb/usbip_protocol.rst. All numbers are big endian, a header has 48 bytes:
 *
 *     0  u32 command: 1 submit, 2 unlink; in answers 3 and 4
 *     4  u32 sequence number, repeated by the answer
 *     8  u32 device       12  u32 direction, 1 is in       16  u32 endpoint
 *
 *    submit:  20  u32 flags    24  u32 buffer length    28  start frame, packets, interval    40  u8 setup[8]
 *             behind it, if the direction is out: the buffer
 *    answer:  20  i32 status, negative errno    24  u32 actual length    28  zeros
 *             behind it, if the direction was in: the bytes
 *    unlink:  20  u32 sequence number of the transfer that is no longer wanted
 *    answer:  20  i32 status: -ECONNRESET if it was given up, 0 if it was complete
 */
import type { Duplex } from 'node:stream'

const SUBMIT = 1
const UNLINK = 2
const SUBMITTED = 3
const UNLINKED = 4
const HEADER_BYTES = 48
/** More than a driver of a serial adapter ever asks for at once. */
const MAX_TRANSFER_BYTES = 64 * 1024
const EPIPE = 32
const ECONNRESET = 104

export interface Setup {
  requestType: number
  request: number
  value: number
  index: number
}

/** A bulk transfer that the host waits for, until the device completes it or the host gives it up. */
export interface Transfer {
  /** What the host sends; empty if it wants to receive. */
  readonly bytes: Buffer
  readonly done: boolean
  complete(bytes?: Buffer): void
}

export interface UsbDevice {
  /** Answers with what the host is to get, which may be nothing; undefined if the device knows no such request. */
  control(setup: Setup): Buffer | undefined
  receive(transfer: Transfer): void
  send(transfer: Transfer): void
}

/** Answers the host on `socket` until that ends. */
export async function serveUsbIp(socket: Duplex, device: UsbDevice): Promise<void> {
  const pending = new Map<number, () => void>()
  const answer = (command: number, sequence: number, status: number, length = 0, bytes?: Buffer): void => {
    const header = Buffer.alloc(HEADER_BYTES)
    header.writeUInt32BE(command, 0)
    header.writeUInt32BE(sequence, 4)
    header.writeInt32BE(status, 20)
    header.writeUInt32BE(length, 24)
    socket.write(bytes === undefined ? header : Buffer.concat([header, bytes]))
  }

  const submit = (header: Buffer, bytes: Buffer): void => {
    const sequence = header.readUInt32BE(4)
    const isIn = header.readUInt32BE(12) === 1
    const capacity = header.readUInt32BE(24)
    if (header.readUInt32BE(16) === 0) {
      const setup = {
        requestType: header.readUInt8(40),
        request: header.readUInt8(41),
        value: header.readUInt16LE(42),
        index: header.readUInt16LE(44),
      }
      const reply = device.control(setup)?.subarray(0, capacity)
      if (reply === undefined) answer(SUBMITTED, sequence, -EPIPE)
      else if (isIn) answer(SUBMITTED, sequence, 0, reply.length, reply)
      else answer(SUBMITTED, sequence, 0, capacity)
      return
    }
    let done = false
    pending.set(sequence, () => {
      done = true
    })
    const transfer: Transfer = {
      bytes,
      get done() {
        return done
      },
      complete(reply) {
        if (done) return
        done = true
        pending.delete(sequence)
        answer(SUBMITTED, sequence, 0, reply?.length ?? bytes.length, reply)
      },
    }
    if (isIn) device.send(transfer)
    else device.receive(transfer)
  }

  let buffered = Buffer.alloc(0)
  for await (const chunk of socket) {
    buffered = Buffer.concat([buffered, chunk as Buffer])
    while (buffered.length >= HEADER_BYTES) {
      const header = buffered.subarray(0, HEADER_BYTES)
      const command = header.readUInt32BE(0)
      const hasBuffer = command === SUBMIT && header.readUInt32BE(12) === 0
      const length = hasBuffer ? header.readUInt32BE(24) : 0
      if (length > MAX_TRANSFER_BYTES) throw new Error(`a transfer of ${length} bytes`)
      if (buffered.length < HEADER_BYTES + length) break
      const bytes = buffered.subarray(HEADER_BYTES, HEADER_BYTES + length)
      buffered = buffered.subarray(HEADER_BYTES + length)
      if (command === SUBMIT) submit(header, bytes)
      else if (command === UNLINK) {
        const victim = header.readUInt32BE(20)
        const giveUp = pending.get(victim)
        pending.delete(victim)
        giveUp?.()
        answer(UNLINKED, header.readUInt32BE(4), giveUp === undefined ? 0 : -ECONNRESET)
      } else throw new Error(`command ${command}`)
    }
  }
}
