"""What the tests of behaviour under load share: the pusher and what it logs. Import this first: it brings the harness.

LOAD_SHARE in the environment says how much of the full load a test takes; ctest sets it, and 1 is all of it.
"""

import math
import os
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import harness

PROGRAMS = os.path.join(harness.BUILD_DIR, "tests", "integration", "load")
PUSHER = os.path.join(PROGRAMS, "pusher")
SHARE = float(os.environ.get("LOAD_SHARE", "1"))
LONG = 8 * harness.TIMEOUT  # for what takes long because it is much


def scaled(count, least=1):
    """The share of a count that this build takes."""
    return max(least, math.ceil(count * SHARE))


def of_process(pid, name):
    """A line of /proc's status of a process, in bytes."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        (line,) = (line for line in status if line.startswith(name + ":"))
    return int(line.split()[1]) << 10


def resident(pid):
    return of_process(pid, "VmRSS")


def resident_peak(pid):
    return of_process(pid, "VmHWM")


def is_sanitized(pid):
    """Whether its memory is that of a sanitizer rather than its own."""
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
        return re.search("/lib[at]san", maps.read()) is not None


@dataclass
class Push:
    """A push that succeeded."""

    seed: int
    number: int
    commit: int
    epoch: int
    applied: int
    frozen: int
    absent: int
    replayed: bool
    named: int  # a set of leaves, as is the next
    sent: int


@dataclass
class Change:
    """What the pusher's operator did."""

    is_freeze: bool
    commit: int
    epoch: int


@dataclass
class Lineage:
    """A call of on_lineage."""

    old: int
    new: int


@dataclass
class Failed:
    """A push that failed."""

    seed: int
    number: int
    code: str


def parse(line):
    kind, *words = line.split()
    if kind == "push":
        *numbers, replayed, named, sent = words
        return Push(*map(int, numbers), replayed == "1", int(named, 16), int(sent, 16))
    if kind in ("freeze", "thaw"):
        return Change(kind == "freeze", int(words[0]), int(words[1]))
    if kind == "lineage":
        return Lineage(*map(int, words))
    return Failed(int(words[0]), int(words[1]), words[2])


class Pusher:
    """A pusher that runs. `flags` are pusher.c's; `leaves` its --leaf."""

    def __init__(self, address, leaves, *flags):
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "log")
        self.errors = tempfile.TemporaryFile("w+", errors="replace")
        command = [PUSHER, f"--server={address}", f"--log={self.path}", *flags]
        command += [f"--leaf={leaf}" for leaf in leaves]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=self.errors, text=True, env=harness.environment()
        )

    def log(self):
        """What has happened so far, in the order of the log."""
        if not os.path.exists(self.path):
            return []
        with open(self.path, encoding="utf-8") as log:
            return [parse(line) for line in log if line.endswith("\n")]

    def of(self, kind):
        return [entry for entry in self.log() if isinstance(entry, kind)]

    def wait_for(self, kind, count, timeout=LONG):
        """Waits for at least `count` entries of a kind, and returns them."""

        def enough():
            found = self.of(kind)
            return found if len(found) >= count or self.process.poll() is not None else None

        found = harness.eventually(enough, f"{count} of {kind.__name__} in the log", timeout)
        if len(found) < count:
            raise AssertionError(f"the pusher ended after {len(found)} of {kind.__name__}: {self.stderr()}")
        return found

    def next(self):
        """Of a --paced pusher with one worker: makes one push, and returns its entry."""
        before = len(self.log())
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        harness.eventually(lambda: len(self.log()) > before or self.process.poll() is not None, "a push")
        return self.log()[before]

    def stderr(self):
        self.errors.seek(0)
        return self.errors.read()

    def wait(self, code=0, timeout=LONG):
        """Waits for its end by itself, and returns its log."""
        got = self.process.wait(timeout)
        errors = self.stderr()
        if got != code or harness.SANITIZER.search(errors):
            raise AssertionError(f"the pusher ended with {got}, not {code}: {errors}")
        return self.log()

    def stop(self):
        """Ends it after the pushes that are under way, and returns its log."""
        self.process.send_signal(signal.SIGTERM)
        self.process.stdin.close()
        return self.wait()

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if not self.process.stdin.closed:
            self.process.stdin.close()
        self.errors.close()
        self.folder.cleanup()


class TestCase(harness.TestCase):
    def pusher(self, *arguments):
        pusher = Pusher(*arguments)
        self.addCleanup(pusher.close)
        return pusher

    def replay(self, pusher, leaves, address, *flags):
        """Applies a pusher's log to a new server."""
        command = [PUSHER, f"--server={address}", f"--replay={pusher.path}", *flags]
        command += [f"--leaf={leaf}" for leaf in leaves]
        done = subprocess.run(
            command, stderr=subprocess.PIPE, text=True, env=harness.environment(), timeout=LONG, check=False
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
