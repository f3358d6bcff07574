"""Runs one file of pyserial's own tests against a port and prints what became of each test, as one JSON object.

  pyserial_suite.py FOLDER FILE URL [TEST...]     FOLDER is pyserial's source, FILE one of its test/test*.py,
                                                  TEST as it is printed here; all when there is none

  -> {"Test_DataStream.test_all": "ok", ...}    ok, failed (its body or its tearDown) or skipped

One file in a process of its own: some of the tests never close the port, and then the next file can't have it.
"""
import importlib.util
import json
import os
import sys
import unittest

source, file, url = sys.argv[1:4]
only = sys.argv[4:]
sys.path[:0] = [source, os.path.join(source, "test")]
# The files take the port from their own command line, too, if there is one.
sys.argv = [file]
spec = importlib.util.spec_from_file_location("suite", os.path.join(source, "test", file))
suite = importlib.util.module_from_spec(spec)
spec.loader.exec_module(suite)
suite.PORT = url


def name(test):
    return ".".join(test.id().split(".")[-2:])


class Outcomes(unittest.TestResult):
    def __init__(self):
        super().__init__()
        self.outcomes = {}

    def startTest(self, test):
        super().startTest(test)
        self.outcomes[name(test)] = "ok"

    def addError(self, test, error):
        self._fail(test, error)

    def addFailure(self, test, error):
        self._fail(test, error)

    def addSkip(self, test, reason):
        self.outcomes[name(test)] = "skipped"

    def _fail(self, test, error):
        self.outcomes[name(test)] = "failed"
        sys.stderr.write(f"{file}: {name(test)}: {self._exc_info_to_string(error, test)}\n")


def each(tests):
    for test in tests:
        if isinstance(test, unittest.TestSuite):
            yield from each(test)
        elif not only or name(test) in only:
            yield test


tests = unittest.TestSuite(each(unittest.defaultTestLoader.loadTestsFromModule(suite)))
result = Outcomes()
tests.run(result)
print(json.dumps(result.outcomes), flush=True)
# Ports that a test left open have threads of their own, which would keep this process.
os._exit(0)
