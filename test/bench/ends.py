"""The two ends of a serial path, as small and fast as a script can be, the same for every stack that is measured.

  ends.py echo LINK               a device on a PTY found at LINK, which sends back what it gets; runs until killed
  ends.py echoes LINK..           the same for several
  ends.py rtt TTY COUNT BYTES     COUNT round trips of so many bytes; prints {"p50", "p99"} in microseconds
  ends.py bulk TTY MIB            MIB mebibytes out and back at once; prints {"mib_s", "wrong"}
  ends.py paced SECONDS BPS TTY.. BPS bytes a second out and back on each of them; prints {"sent", "got", "wrong"}
  ends.py bursts SECONDS BYTES TTY..
                                  once a second BYTES out and back on each of them, as GPS receivers do; prints
                                  {"sent", "got", "wrong"}
  ends.py modbus LINK             a device that answers each 8 bytes with 64, in pieces as a UART hands them over
  ends.py transactions TTY COUNT  so many of its answers; prints {"p50", "p99", "gapP99", "gapMax"} in milliseconds, and
                                  how many came in one piece, {"wholePercent"}
  ends.py flood LINK              a device that sends as fast as its line goes while it is being sent something
  ends.py fill SETTLE SECONDS TTY LINK..
                                  fills the lines to such devices; prints the bytes a second of all of them together that
                                  arrived there and here, {"up", "down", "wrong"}, without the SETTLE seconds before
  ends.py pulse TTY SECONDS [settled]
                                  a byte every 20 ms out and back; prints {"p50", "p99", "max"} in milliseconds, and how
                                  many had not come back when nothing had come for long, {"late"}
"""
import collections
import json
import os
import pty
import select
import struct
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


def echoes(links):
    unsent = {}
    poll = select.epoll()
    for link in links:
        master, slave = pty.openpty()
        tty.setraw(slave)
        os.set_blocking(master, False)
        os.symlink(os.ttyname(slave), link)
        unsent[master] = b""
        poll.register(master, select.EPOLLIN)
    while True:
        for fd, _ in poll.poll():
            # No more is read while something has not been sent back: that is the flow control of a PTY.
            data = unsent[fd] or os.read(fd, 65536)
            try:
                unsent[fd] = data[os.write(fd, data):]
            except BlockingIOError:
                unsent[fd] = data
            poll.modify(fd, select.EPOLLOUT if unsent[fd] else select.EPOLLIN)


def settle(*fds):
    """Waits until the paths are up: sends a byte now and then until one comes back, then reads what is left."""
    waiting = set(fds)
    for _ in range(300):
        for fd in waiting:
            os.write(fd, b"\x55")
        waiting -= set(select.select(list(waiting), [], [], 0.1)[0])
        if not waiting:
            break
    while readable := select.select(fds, [], [], 0.3)[0]:
        for fd in readable:
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
    settle(*fds)
    for fd in fds:
        os.set_blocking(fd, False)
    index = {fd: i for i, fd in enumerate(fds)}
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
            i = index[fd]
            data = os.read(fd, 65536)
            at = got[i] % 256
            wrong += data != pattern[at:at + len(data)]
            got[i] += len(data)
        # As often as a program that fills a 115200 baud UART's buffer would.
        time.sleep(0.01)
    print(json.dumps({"sent": sum(sent), "got": sum(got), "wrong": wrong}))


def modbus(link):
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.symlink(os.ttyname(slave), link)
    request = b""
    while True:
        request += os.read(master, 64)
        while len(request) >= 8:
            for i in range(8):
                os.write(master, request[:8])
                time.sleep(0.0007)
            request = request[8:]


def transactions(path, count):
    fd = open_raw(path)
    times, gaps, whole = [], [], 0
    for i in range(count + 50):
        request = bytes((i + k) % 251 for k in range(8))
        start = last = time.perf_counter()
        os.write(fd, request)
        answer, pieces, gap = b"", 0, 0
        while len(answer) < 64:
            if not select.select([fd], [], [], 5)[0]:
                raise SystemExit(f"{len(answer)} of 64 bytes came")
            answer += os.read(fd, 64)
            now = time.perf_counter()
            gap = max(gap, now - last if pieces > 0 else 0)
            last, pieces = now, pieces + 1
        if answer != request * 8:
            raise SystemExit(f"asked {request!r}, got {answer!r}")
        if i >= 50:
            times.append((last - start) * 1e3)
            gaps.append(gap * 1e3)
            whole += pieces == 1
    times.sort()
    gaps.sort()
    p50, p99, gap_p99 = times[count // 2], times[count * 99 // 100], gaps[count * 99 // 100]
    print(json.dumps({"p50": round(p50, 2), "p99": round(p99, 2), "gapP99": round(gap_p99, 2),
                      "gapMax": round(gaps[-1], 2), "wholePercent": round(100 * whole / count)}))


def bursts(seconds, size, paths):
    fds = [open_raw(path) for path in paths]
    for fd in fds:
        os.set_blocking(fd, False)
    text = bytes(i % 251 for i in range(size))
    sent, got, wrong = 0, dict.fromkeys(fds, 0), 0
    poll = select.epoll()
    for fd in fds:
        poll.register(fd, select.EPOLLIN)
    # One after the other, evenly.
    turns = [(second + i / len(fds), fd) for second in range(seconds) for i, fd in enumerate(fds)]
    start, last = time.monotonic(), 0
    while (now := time.monotonic() - start) < seconds + 5 and (last < len(turns) or sum(got.values()) < sent):
        while last < len(turns) and turns[last][0] <= now:
            sent += os.write(turns[last][1], text)
            last += 1
        for fd, _ in poll.poll(0.02):
            data = os.read(fd, 65536)
            wrong += data != (text * 3)[got[fd] % size:got[fd] % size + len(data)]
            got[fd] += len(data)
    print(json.dumps({"sent": sent, "got": sum(got.values()), "wrong": wrong}))


# What goes both ways between a filling program and a flooding device: each byte tells where in 256 it is.
STREAM = bytes((i * 7 + 3) & 0xFF for i in range(256)) * 258
COUNTS = struct.Struct("=QQ")
PATIENCE_SECONDS = 20


def wrong_in(data, at):
    return data != STREAM[at % 256:at % 256 + len(data)]


def flood(link):
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    # What has come, and how often it was wrong: beside the line, on which it would be told late.
    counts = os.open(link + ".counts", os.O_RDWR | os.O_CREAT, 0o600)
    os.pwrite(counts, COUNTS.pack(0, 0), 0)
    os.symlink(os.ttyname(slave), link)
    got, wrong, sent, last = 0, 0, 0, float("-inf")
    while True:
        busy = time.monotonic() - last < 2
        readable, writable, _ = select.select([master], [master] if busy else [], [], 1 if busy else None)
        if readable:
            data = os.read(master, 65536)
            wrong += wrong_in(data, got)
            got += len(data)
            last = time.monotonic()
            os.pwrite(counts, COUNTS.pack(got, wrong), 0)
        if writable:
            try:
                sent += os.write(master, STREAM[sent % 256:sent % 256 + 4096])
            except BlockingIOError:
                pass


def fill(settling, seconds, paths):
    fds = [open_raw(path) for path in paths[::2]]
    counts = [os.open(path + ".counts", os.O_RDONLY) for path in paths[1::2]]
    for fd in fds:
        os.set_blocking(fd, False)

    def at_devices():
        both = [COUNTS.unpack(os.pread(fd, COUNTS.size, 0)) for fd in counts]
        return sum(got for got, _ in both), sum(wrong for _, wrong in both)

    sent, got, wrong = dict.fromkeys(fds, 0), dict.fromkeys(fds, 0), 0
    before = None
    start = time.monotonic()
    while (now := time.monotonic() - start) < settling + seconds:
        if before is None and now >= settling:
            before = now, at_devices()[0], sum(got.values())
        readable, writable, _ = select.select(fds, fds, [], 0.1)
        for fd in writable:
            try:
                sent[fd] += os.write(fd, STREAM[sent[fd] % 256:sent[fd] % 256 + 4096])
            except BlockingIOError:
                pass
        for fd in readable:
            data = os.read(fd, 65536)
            wrong += wrong_in(data, got[fd])
            got[fd] += len(data)
    there, wrong_there = at_devices()
    since, there_before, here_before = before
    up, down = there - there_before, sum(got.values()) - here_before
    print(json.dumps({"up": round(up / (now - since)), "down": round(down / (now - since)), "wrong": wrong + wrong_there}))


def pulse(path, seconds, settled):
    # A port that is in use already is as it should be, and setting it again would throw away what is under way.
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY) if settled else open_raw(path)
    if not settled:
        settle(fd)
    times, under_way, sent, total = [], collections.deque(), 0, seconds * 50
    start = time.perf_counter()
    while len(times) < total:
        now = time.perf_counter()
        if sent < total and now >= start + sent * 0.02:
            under_way.append((now, sent % 251))
            os.write(fd, bytes([sent % 251]))
            sent += 1
        wait = start + sent * 0.02 - time.perf_counter() if sent < total else PATIENCE_SECONDS
        if select.select([fd], [], [], max(0, wait))[0]:
            now = time.perf_counter()
            for byte in os.read(fd, 4096):
                at, expected = under_way.popleft()
                if byte != expected:
                    raise SystemExit(f"sent {expected}, got {byte}")
                times.append((now - at) * 1e3)
        elif sent == total:
            break
    late = total - len(times)
    times = sorted(times) + [PATIENCE_SECONDS * 1e3] * late
    p50, p99 = times[total // 2], times[total * 99 // 100]
    print(json.dumps({"p50": round(p50, 1), "p99": round(p99, 1), "max": round(times[-1], 1), "late": late}))


command, *args = sys.argv[1:]
{
    "echo": lambda: echo(args[0]),
    "echoes": lambda: echoes(args),
    "rtt": lambda: rtt(args[0], int(args[1]), int(args[2])),
    "bulk": lambda: bulk(args[0], int(args[1])),
    "flood": lambda: flood(args[0]),
    "modbus": lambda: modbus(args[0]),
    "transactions": lambda: transactions(args[0], int(args[1])),
    "bursts": lambda: bursts(int(args[0]), int(args[1]), args[2:]),
    "fill": lambda: fill(float(args[0]), float(args[1]), args[2:]),
    "pulse": lambda: pulse(args[0], int(args[1]), args[2:] == ["settled"]),
    "paced": lambda: paced(float(args[0]), int(args[1]), args[2:]),
}[command]()
