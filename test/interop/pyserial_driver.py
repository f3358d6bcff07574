"""A program that uses a serial port through pyserial and does what it is told, one JSON object a line.

  pyserial_driver.py URL [OPTIONS AS JSON]     opens URL (a tty or rfc2217://host:port), then answers each line:

  {"set": {"baudrate": 9600}}      sets attributes of the port           -> {"ok": true}
  {"get": ["cts", "dsr"]}          reads attributes                      -> {"cts": true, ...}
  {"call": "reset_output_buffer"}  calls a method                        -> {"ok": true}
  {"exchange": 8388608}            that many random bytes out while as many come in
                                                                         -> {"sent": sha256, "received": sha256}
"""
import hashlib
import json
import os
import sys
import threading

import serial


def exchange(port, total):
    sent, received = hashlib.sha256(), hashlib.sha256()

    def send():
        left = total
        block = bytes(range(256))
        while left:
            block = block[:left]
            sent.update(block)
            port.write(block)
            left -= len(block)
            block = os.urandom(4096)

    sender = threading.Thread(target=send)
    sender.start()
    got = 0
    while got < total:
        data = port.read(min(65536, total - got, max(1, port.in_waiting)))
        if not data:
            raise SystemExit(f"only {got} of {total} bytes came")
        received.update(data)
        got += len(data)
    sender.join()
    return {"sent": sent.hexdigest(), "received": received.hexdigest()}


options = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
with serial.serial_for_url(sys.argv[1], timeout=30, **options) as port:
    print(json.dumps({"opened": serial.__version__}), flush=True)
    for line in sys.stdin:
        todo = json.loads(line)
        answer = {"ok": True}
        if "set" in todo:
            for name, value in todo["set"].items():
                setattr(port, name, value)
        if "get" in todo:
            answer = {name: getattr(port, name) for name in todo["get"]}
        if "call" in todo:
            getattr(port, todo["call"])()
        if "exchange" in todo:
            answer = exchange(port, todo["exchange"])
        print(json.dumps(answer), flush=True)
