"""The two ends of a serial path, as small and fast as a script can be, the same for every stack that is measured.

  ends.py echo LINK               a device on a PTY found at LINK, which sends back what it gets; runs until killed
  ends.py rtt TTY COUNT           COUNT one-byte round trips; prints {"p50", "p99"} in microseconds
  ends.py bulk TTY MIB            MIB mebibytes out and back at once; prints {"mib_s", "wrong"}
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


def rtt(path, count):
    fd = open_raw(path)
    settle(fd)
    times = []
    for i in range(count + 100):
        sent = bytes([i % 251])
        start = time.perf_counter()
        os.write(fd, sent)
        got = os.read(fd, 1)
        if got != sent:
            raise SystemExit(f"sent {sent!r}, got {got!r}")
        if i >= 100:
            times.append((time.perf_counter() - start) * 1e6)
    times.sort()
    print(json.dumps({"p50": round(times[len(times) // 2], 1), "p99": round(times[len(times) * 99 // 100], 1)}))


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


command, *args = sys.argv[1:]
{"echo": lambda: echo(args[0]), "rtt": lambda: rtt(args[0], int(args[1])), "bulk": lambda: bulk(args[0], int(args[1]))}[command]()
