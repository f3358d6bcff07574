"""The two ends of a serial path, as small and fast as a script can be, the same for every stack that is measured.

  ends.py echo LINK               a device on a PTY found at LINK, which sends back what it gets; runs until killed
  ends.py rtt TTY COUNT BYTES     COUNT round trips of so many bytes; prints {"p50", "p99"} in microseconds
  ends.py bulk TTY MIB            MIB mebibytes out and back at once; prints {"mib_s", "wrong"}
  ends.py paced SECONDS BPS TTY.. BPS bytes a second out and back on each of them; prints {"sent", "got", "wrong"}
"""
import json
import os
import pty
import select
import sys
import time
import tty


def open_raw(path):
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
    tty.setraw(fd)
    return fd


def echo(link):
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.symlink(os.ttyname(slave), link)
    while True:
        data = memoryview(os.read(master, 65536))
        while data:
            data = data[os.write(master, data):]


def settle(fd):
    """Waits until the path is up: sends a byte now and then until one comes back, then reads what is left."""
    for _ in range(300):
        os.write(fd, b"\x55")
        if select.select([fd], [], [], 0.1)[0]:
            break
    while select.select([fd], [], [], 0.3)[0]:
        os.read(fd, 65536)


def rtt(path, count, size):
    fd = open_raw(path)
    settle(fd)
    times = []
    # The first ones warm up whatever compiles, caches or grows its buffers.
    for i in range(count + max(100, count // 3)):
        sent = bytes([i % 251]) * size
        start = time.perf_counter()
        os.write(fd, sent)
        got = os.read(fd, size)
        while len(got) < size:
            got += os.read(fd, size - len(got))
        if got != sent:
            raise SystemExit(f"sent {sent!r}, got {got!r}")
        times.append((time.perf_counter() - start) * 1e6)
    times = sorted(times[-count:])
    print(json.dumps({"p50": round(times[count // 2], 1), "p99": round(times[count * 99 // 100], 1)}))


def bulk(path, mib):
    fd = open_raw(path)
    settle(fd)
    os.set_blocking(fd, False)
    block = bytes((i * 7 + 3) & 0xFF for i in range(256)) * 16
    total, sent, got, wrong = mib << 20, 0, 0, 0
    start = time.perf_counter()
    while got < total:
        # At most 64 KiB under way: what a program that waits for answers would have, and less than the PTYs can lose.
        readable, writable, _ = select.select([fd], [fd] if sent < total and sent - got < 65536 else [], [], 10)
        if not readable and not writable:
            raise SystemExit(f"stuck at {got} of {total} bytes")
        if writable:
            at = sent % 4096
            try:
                sent += os.write(fd, block[at:at + min(4096 - at, total - sent)])
            except BlockingIOError:
                pass
        if readable:
            data = os.read(fd, 65536)
            at = got % 4096
            wrong += data != (block * 17)[at:at + len(data)]
            got += len(data)
    print(json.dumps({"mib_s": round(mib / (time.perf_counter() - start), 2), "wrong": wrong}))


def paced(seconds, rate, paths):
    fds = [open_raw(path) for path in paths]
    for fd in fds:
        settle(fd)
        os.set_blocking(fd, False)
    sent, got, wrong = [0] * len(fds), [0] * len(fds), 0
    pattern = bytes((i * 7 + 3) & 0xFF for i in range(256)) * 260
    start = time.perf_counter()
    while (now := time.perf_counter() - start) < seconds + 1:
        due = int(min(now, seconds) * rate)
        for i, fd in enumerate(fds):
            if due > sent[i]:
                at = sent[i] % 256
                try:
                    sent[i] += os.write(fd, pattern[at:at + min(due - sent[i], 4096)])
                except BlockingIOError:
                    pass
        for fd in select.select(fds, [], [], 0)[0]:
            i = fds.index(fd)
            data = os.read(fd, 65536)
            at = got[i] % 256
            wrong += data != pattern[at:at + len(data)]
            got[i] += len(data)
        # As often as a program that fills a 115200 baud UART's buffer would.
        time.sleep(0.01)
    print(json.dumps({"sent": sum(sent), "got": sum(got), "wrong": wrong}))


command, *args = sys.argv[1:]
{
    "echo": lambda: echo(args[0]),
    "rtt": lambda: rtt(args[0], int(args[1]), int(args[2])),
    "bulk": lambda: bulk(args[0], int(args[1])),
    "paced": lambda: paced(float(args[0]), int(args[1]), args[2:]),
}[command]()
