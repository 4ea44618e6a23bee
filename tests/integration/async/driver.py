"""What the tests share that tell driver.c what to do: the program, and a server that it reaches through a proxy."""

import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import harness
from harness import from_f64
from proxy import Proxy

DRIVER = os.path.join(harness.BUILD_DIR, "tests", "integration", "async", "driver")
WAIT_MS = 1000 * int(harness.TIMEOUT)
FOREVER_MS = 10 * WAIT_MS  # a deadline that must not be what ends a call
SGD = "--group=default=sgd(lr=1)"


class Driver:
    """The program. Each method is one of its commands, and returns its answer."""

    def __init__(self):
        self.process = subprocess.Popen(
            [DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=harness.environment()
        )

    def __call__(self, *words):
        self.tell(*words)
        return self.hear()

    def tell(self, *words):
        """Of a command that takes a while; its answer is to be heard before the next."""
        self.told = words
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def hear(self):
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the driver ended with {self.process.wait()} at {self.told}")
        return json.loads(line)

    def ok(self, *words):
        answer = self(*words)
        if answer.get("code", "OK") != "OK":
            raise AssertionError(f"{words}: {answer}")
        return answer

    def begin(self, *words):
        return self.ok(*words)["handle"]

    def wait(self, handle, timeout_ms=WAIT_MS):
        answer = self("wait", handle, timeout_ms)
        if not answer["done"]:
            raise AssertionError(f"handle {handle} has not ended: {answer}")
        return answer

    def wait_ok(self, handle):
        answer = self.wait(handle)
        if answer["code"] != "OK":
            raise AssertionError(f"handle {handle}: {answer}")
        return answer

    def end(self):
        """Ends it in order: nothing may be leaked, nor a sanitizer have anything to say."""
        self.process.stdin.close()
        code = self.process.wait(harness.TIMEOUT)
        self.process.stdout.close()
        if code != 0:
            raise AssertionError(f"the driver ended with {code}")


class AsyncCase(harness.TestCase):
    flags = ()

    def setUp(self):
        self.server_process = self.server(SGD, *self.flags)
        self.proxy = Proxy(self.server_process.address)
        self.addCleanup(self.proxy.close)
        self.c = self.client(self.server_process.address)  # past the proxy
        self.d = self.driver()

    def driver(self, *options, target=None):
        driver = Driver()
        self.addCleanup(driver.process.kill)
        self.addCleanup(self._end, driver)
        driver.ok("open", target or self.proxy.address, f"deadline_ms={FOREVER_MS}", *options)
        return driver

    @staticmethod
    def _end(driver):
        if driver.process.poll() is None:
            driver.end()

    def value(self, name):
        """That all elements of a leaf have, as the server has it."""
        (value,) = set(from_f64(self.c.value(name)))
        return value

    def restart(self, before=None):
        """Another server in the place of the first; the proxy goes there from now on."""
        self.server_process.stop()
        self.server_process = self.server(SGD)
        self.c = self.client(self.server_process.address)
        if before is not None:
            before(self.c)
        self.proxy.target = self.server_process.address
        self.proxy.cut()
