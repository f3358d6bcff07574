/**
 * `node conntrack-flush.ts`: makes the NAT of the network namespace it runs in forget every connection, as a router does
 * when it reboots. One ctnetlink message, which saves a package:
 *
 *   nlmsghdr    length u32 | type u16, 01 02: conntrack, delete | flags u16, 5: request, acknowledge | sequence u32 | pid u32
 *   nfgenmsg    family u8, 0: all | version u8 | resource u16              no tuple follows: delete all
 */
import { createRequire } from 'node:module'

const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi')

const AF_NETLINK = 16
const SOCK_RAW = 3
const NETLINK_NETFILTER = 12
const IPCTNL_MSG_CT_DELETE = 0x0102
const NLM_F_REQUEST_ACK = 5

const c = koffi.load(null)
const socket = c.func('int socket(int domain, int type, int protocol)')
const send = c.func('intptr_t send(int fd, const void *bytes, size_t length, int flags)')
const recv = c.func('intptr_t recv(int fd, void *bytes, size_t length, int flags)')

const fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER)
const message = Buffer.alloc(20)
message.writeUInt32LE(message.length)
message.writeUInt16LE(IPCTNL_MSG_CT_DELETE, 4)
message.writeUInt16LE(NLM_F_REQUEST_ACK, 6)
if (Number(send(fd, message, message.length, 0)) < 0) throw new Error(`ctnetlink: errno ${koffi.errno()}`)
// The acknowledgement is an nlmsgerr: behind the header, a negative errno or 0.
const answer = Buffer.alloc(256)
if (Number(recv(fd, answer, answer.length, 0)) < 20 || answer.readInt32LE(16) !== 0)
  throw new Error(`ctnetlink refused: ${answer.readInt32LE(16)}`)
