"""Workers that join, push, pull, leave and are killed at random, over connections that are cut, and an operator who
freezes and thaws beside them, for as long as one likes.

    soak.py BUILD_DIR [--minutes N] [--seed S]

Time is cut into rounds. At the end of each, the workers leave, and everything is compared: each commit number is in
exactly one log; the server's digest is that of a second server, to which the logs were applied in commit order; what
was pulled is what was there at that commit; the server holds nothing more, and its memory has not grown. The first
difference, and any error that a worker did not have to expect, ends it with exit code 1. The seed decides what is done,
not when: a second run with it is another one of its kind.
"""

import argparse
import bisect
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time

import recipe
from load import LONG, PUSHER, harness, is_sanitized, parse, resident
from proxy import Proxy

LEAVES = [
    "enc.a:f64:1000",
    "enc.b:f32:10x37",
    "enc.c:f32:70001",
    "enc.d:f32:512x400",
    "head.w:f32:999",
    "head.b:f64:3",
    "head.deep.c:f64:64x5",
    "tail:f32:1",
]
SELECTIONS = ["enc", "head", "enc.c", "head.deep", "tail", "enc.*"]
FLAGS = [
    "--group=default=adamw(lr=0.01, weight_decay=0.1)",
    "--group=momentum=sgd(lr=0.001, momentum=0.9)",
    "--assign=head=momentum",
    "--threads=3",
    "--rpc-threads=2",
    "--max-staged=4MiB",  # less than what all want at once
    "--max-copy-on-write=4MiB",
    # The pusher reads the library's flags before each push; no heartbeat may change them in between.
    "--lease=1h",
]
WORKERS = 5
PUSHERS = 3  # threads of one process, through the library
LOG_BYTES_MIN = 1000  # that a worker writes before it leaves or is killed
SEEDS = 1 << 20  # for one worker's sessions
ROUND_SECONDS = 30
WARM_UP = 0.25  # of the rounds
GROWTH_MAX = 16 << 20  # of memory that is resident, after the warm-up: what the allocator needs to settle ...
GROWTH_MAX_MINUTE = 128 << 10  # ... and what a minute may add to it


class Worker:
    """A worker's process, and its log, which outlives it."""

    def __init__(self, soak, number):
        self.soak = soak
        self.path = os.path.join(soak.folder, f"worker{number}")
        self.seed = (number + 1) * SEEDS
        self.start()

    def start(self):
        self.begun = os.path.getsize(self.path) if os.path.exists(self.path) else 0
        address = self.soak.random.choice([self.soak.server.address, self.soak.proxy.address])
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "soak_worker.py")
        self.process = subprocess.Popen(
            [sys.executable, script, harness.BUILD_DIR, address, self.path, str(self.seed), *LEAVES],
            stdin=subprocess.PIPE,
        )

    def has_worked(self):
        """This process, not one before it: it has logged a few pushes or pulls."""
        if self.process.poll() is not None:
            raise AssertionError(f"worker {self.path} ended with {self.process.returncode}")
        return os.path.exists(self.path) and os.path.getsize(self.path) > self.begun + LOG_BYTES_MIN

    def end(self):
        self.process.stdin.close()

    def wait(self):
        if self.process.wait(LONG) != 0:
            raise AssertionError(f"worker {self.path} ended with {self.process.returncode}")

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdin.close()

    def crash(self):
        self.kill()
        self.start()


class Library:
    """The pusher: workers that use the library, and only leave in order."""

    def __init__(self, soak, number):
        self.path = os.path.join(soak.folder, f"pusher{number}")
        flags = [f"--threads={PUSHERS}", f"--seed={number * SEEDS}", "--random", "--subset", "--deadline-ms=60000"]
        command = [PUSHER, f"--server={soak.proxy.address}", f"--log={self.path}", *flags]
        self.process = subprocess.Popen(
            command + [f"--leaf={leaf}" for leaf in LEAVES], env=harness.environment(), stdin=subprocess.DEVNULL
        )

    def end(self):
        # Before its log is there, it may not yet know what to do about a signal.
        harness.eventually(lambda: os.path.exists(self.path) or self.process.poll() is not None, "the pusher runs")
        self.process.send_signal(signal.SIGTERM)

    def wait(self):
        if self.process.wait(LONG) != 0:
            raise AssertionError(f"pusher {self.path} ended with {self.process.returncode}")

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Operator:
    """Freezes and thaws at random, on a thread; `lines` are log.h's."""

    def __init__(self, address, seed):
        self.client = harness.Client(address)
        self.random = random.Random(seed)
        self.lines = []
        self.frozen = [(0, frozenset())]  # what is frozen from each commit on
        self.failed = None
        self.should_end = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        try:
            while not self.should_end.wait(self.random.uniform(0, 0.3)):  # the operator's pace
                self.change()
        except Exception as failed:  # the main thread raises it
            self.failed = failed

    def change(self):
        kind, selection = self.random.choice(["freeze", "thaw"]), self.random.choice(SELECTIONS)
        reply = self.client.apply({kind: {"selection": selection}})
        if reply.commit == 0:
            return  # it was so already
        self.lines.append((reply.commit, f"{kind} {reply.commit} {reply.epoch} {selection}"))
        touched = {change.path for change in reply.changes if change.field == "frozen"}
        before = self.frozen[-1][1]
        self.frozen.append((reply.commit, before | touched if kind == "freeze" else before - touched))

    def end(self):
        self.should_end.set()
        self.thread.join(LONG)
        if self.failed is not None:
            raise self.failed


class Soak:
    """All of it. self.server is what is soaked, self.twin what repeats it."""

    def __init__(self, seed, folder):
        self.seed = seed
        self.random = random.Random(seed)
        self.folder = folder
        self.leaves = [recipe.Leaf(text) for text in LEAVES]
        self.server = self.twin = self.proxy = None
        self.started = []  # processes of this round
        self.started_len = 0  # of all rounds
        self.commit = 0  # the last that was compared
        self.frozen = frozenset()  # paths, at that commit
        self.versions = None  # of each leaf, at that commit
        self.samples = []  # resident bytes at each round's end
        self.counts = dict.fromkeys(("pushes", "replayed", "changes", "plain", "consistent", "crashes"), 0)

    def open(self):
        self.server = harness.Server(*FLAGS)
        self.twin = harness.Server(*FLAGS)
        self.proxy = Proxy(self.server.address, cut_replies=0.005, seed=self.seed)
        self.client = harness.Client(self.server.address)
        reply = self.client.declare(*(harness.leaf(leaf.path, *leaf.shape, dtype=leaf.dtype) for leaf in self.leaves))
        self.commit = reply.commit
        self.versions = [self.described()[leaf.path].version for leaf in self.leaves]

    def close(self):
        """After a failure too."""
        for process in self.started:
            process.kill()
        if self.proxy is not None:
            self.proxy.close()
        for server in (self.server, self.twin):
            if server is not None:
                server.close()

    def described(self, client=None, **fields):
        return {leaf.path: leaf for leaf in (client or self.client).describe(**fields).leaves}

    # ---- a round ----

    def start(self, kind):
        self.started_len += 1
        process = kind(self, self.started_len)
        self.started.append(process)
        return process

    def disturb(self, workers, library):
        """One thing that happens, to a worker that has worked if it is to one. Returns the pusher of now."""
        what = self.random.choices(["crash", "leave", "cut", "library"], [6, 3, 3, 1])[0]
        able = [i for i, worker in enumerate(workers) if worker.has_worked()]
        if what == "cut":
            self.proxy.cut()
        elif what == "library":
            library.end()
            library = self.start(Library)
        elif able and what == "crash":
            workers[self.random.choice(able)].crash()
            self.counts["crashes"] += 1
        elif able:
            index = self.random.choice(able)
            workers[index].end()
            workers[index] = self.start(Worker)
        return library

    def run_round(self, seconds):
        operator = Operator(self.server.address, self.random.random())
        operator.frozen = [(self.commit, self.frozen)]
        workers = [self.start(Worker) for _ in range(WORKERS)]
        library = self.start(Library)
        operator.thread.start()
        crashes = self.counts["crashes"]
        until = time.monotonic() + seconds
        while time.monotonic() < until or self.counts["crashes"] == crashes:
            time.sleep(self.random.uniform(0, 1))  # the pace of what happens
            library = self.disturb(workers, library)
        operator.end()
        operator.client.close()
        for process in [*workers, library]:
            process.end()
        for process in self.started:
            process.wait()
        self.compare(operator)
        self.started.clear()

    # ---- what must hold ----

    def lines(self):
        """Of all logs of this round."""
        for process in self.started:
            with open(process.path, encoding="utf-8") as log:
                yield from log

    def compare(self, operator):
        commits = dict(operator.lines)
        pulls = []
        for line in self.lines():
            if line.startswith("push "):
                commit = parse(line).commit
                if commit in commits:
                    raise AssertionError(f"two that say that they are commit {commit}:\n{commits[commit]}\n{line}")
                commits[commit] = line.rstrip()
            elif line.startswith("pull "):
                pulls.append(line.split())
        last = self.client.info().commit
        missing = set(range(self.commit + 1, last + 1)) - set(commits)
        if missing or len(commits) != last - self.commit:
            raise AssertionError(f"commits {self.commit + 1} to {last}: nobody has {sorted(missing)[:10]}")
        pushes = [parse(line) for line in commits.values() if line.startswith("push ")]
        self.compare_pulls(pulls, pushes, operator.frozen)
        self.replay([commits[commit] for commit in sorted(commits)])
        self.compare_memory()
        self.commit = last
        self.frozen = operator.frozen[-1][1]
        self.counts["pushes"] += len(pushes)
        self.counts["replayed"] += sum(push.replayed for push in pushes)
        self.counts["changes"] += len(operator.lines)

    def steps(self, pushes, frozen):
        """For each leaf the commits that changed it, in their order; checks that as many were frozen as was said."""
        since = [commit for commit, _ in frozen]
        steps = [[] for _ in self.leaves]
        for push in sorted(pushes, key=lambda push: push.commit):
            still = frozen[bisect.bisect_right(since, push.commit) - 1][1]
            stepped = [i for i, leaf in enumerate(self.leaves) if push.sent >> i & 1 and leaf.path not in still]
            if len(stepped) != push.applied:
                raise AssertionError(f"{push} with {sorted(still)} frozen")
            for i in stepped:
                steps[i].append(push.commit)
        return steps

    def compare_pulls(self, pulls, pushes, frozen):
        """A leaf's version says at which commits it may have been read; the same version is the same bytes."""
        steps = self.steps(pushes, frozen)
        bytes_of = {}
        for _, kind, commit, *seen in pulls:
            self.counts[kind] += 1
            for text in seen:
                i, version, crc = map(int, text.split(":"))
                least = self.versions[i] + bisect.bisect_right(steps[i], int(commit))
                most = least if kind == "consistent" else self.versions[i] + len(steps[i])
                if not least <= version <= most:
                    raise AssertionError(
                        f"a {kind} pull at commit {commit} has version {version} of {LEAVES[i]}, not {least} to {most}"
                    )
                if bytes_of.setdefault((i, version), crc) != crc:
                    raise AssertionError(f"version {version} of {LEAVES[i]} was pulled with two values")
        self.versions = [version + len(commits) for version, commits in zip(self.versions, steps)]

    def replay(self, lines):
        path = os.path.join(self.folder, "replay")
        with open(path, "w", encoding="utf-8") as log:
            log.write("".join(line + "\n" for line in lines))
        command = [PUSHER, f"--server={self.twin.address}", f"--replay={path}", "--random", "--subset"]
        command += [f"--leaf={leaf}" for leaf in LEAVES]
        subprocess.run(command, env=harness.environment(), check=True)
        with harness.Client(self.twin.address) as twin:
            expected = self.described(twin, digest=True)
        got = self.described(digest=True)
        for path, leaf in expected.items():
            if (got[path].digest, got[path].steps, got[path].frozen) != (leaf.digest, leaf.steps, leaf.frozen):
                raise AssertionError(f"the replay has another {path}:\n{leaf}\nthan the server:\n{got[path]}")

    def compare_memory(self):
        def is_idle():
            info = self.client.info()
            held = (info.memory.staged, info.memory.copy_on_write, info.memory.spare, info.in_flight)
            return held == (0, 0, 0, 0) and info.pulls_active == 0

        harness.eventually(is_idle, f"the server holds nothing:\n{self.client.info()}")
        self.samples.append(resident(self.server.pid))

    def compare_growth(self, minutes):
        """Of a sanitizer's memory nothing is asked."""
        warm = int(len(self.samples) * WARM_UP)
        growth = self.samples[-1] - self.samples[warm]
        print(f"soak: resident KiB at the rounds' ends: {[sample >> 10 for sample in self.samples]}", flush=True)
        if not is_sanitized(self.server.pid) and growth > GROWTH_MAX + minutes * GROWTH_MAX_MINUTE:
            raise AssertionError(f"memory has grown by {growth >> 10} KiB")

    def run(self, minutes):
        self.open()
        rounds = max(2, round(minutes * 60 / ROUND_SECONDS))
        for number in range(rounds):
            self.run_round(minutes * 60 / rounds)
            held = f"{self.samples[-1] >> 10} KiB"
            print(f"soak: round {number + 1} of {rounds}: commit {self.commit}, {self.counts}, {held}", flush=True)
        self.compare_growth(minutes)
        self.client.close()
        self.server.stop()
        self.twin.stop()


def soak(minutes, seed=None):
    """Returns how often things happened; raises what did not hold."""
    if seed is None:
        seed = random.SystemRandom().randrange(1 << 32)
    print(f"soak: {minutes} minutes, seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        run = Soak(seed, folder)
        try:
            run.run(minutes)
            return run.counts
        except BaseException:
            if run.server is not None:
                print(f"soak: the server's log:\n{run.server.stderr()[-20000:]}", file=sys.stderr)
            raise
        finally:
            run.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--seed", type=int)
    arguments = parser.parse_args()
    soak(arguments.minutes, arguments.seed)
    print("soak: all of it held", flush=True)
