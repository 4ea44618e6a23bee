"""Makes a failing sequence short: replays it on fresh servers with chunks left out (delta debugging), then with parts of
what is left taken out of its operations. Only the same kind of difference counts."""

import re
import time

from runner import Difference, Runner

LISTS = ("operations", "leaves", "pushes", "toggles", "paths", "nodes")


def attempt(config, operations, every=True):
    """What differs, or None. `every`: look at everything after every operation, not only after the last."""
    runner = Runner(config)
    try:
        for place, operation in enumerate(operations):
            runner.run(operation, every or place == len(operations) - 1)
        runner.finish()
    except Difference as difference:
        return str(difference)
    except Exception as error:  # a server that died, say
        return f"{type(error).__name__}: {error}\n{runner.server.stderr()}"
    finally:
        runner.close()
    return None


def signature(problem):
    """The kind of a difference: its first word, and what was expected and came."""
    line = problem.splitlines()[0]
    return line.split()[0].rstrip(":"), *re.findall(r"(?:expected|got) ([A-Z_]+)\b", line)


class Shrinker:
    def __init__(self, config, operations, seconds):
        self.config = config
        self.operations = operations
        self.deadline = time.monotonic() + seconds
        self.tries = 0
        self.rounds = 1  # replays of a sequence before it counts as one without a difference
        self.problem = None

    def is_late(self):
        return time.monotonic() > self.deadline

    def keeps(self, shorter):
        """Whether this fails as well; then it is what is left."""
        for _ in range(self.rounds):
            if self.is_late() or not shorter:
                return False
            self.tries += 1
            found = attempt(self.config, shorter, every=False)
            if found and (self.problem is None or signature(found) == signature(self.problem)):
                self.operations, self.problem = shorter, found
                return True
        return False

    def fails(self):
        """Whether the whole sequence fails again: at once, or now and then."""
        for self.rounds in (1, 2, 4):
            if self.keeps(self.operations):
                return True
        return False

    def leave_out_beginning(self):
        """All but the declarations and the last operations, a few of these first: that is quick, and often enough."""
        for kept in (1, 3, 10, 30, 100):
            if kept >= len(self.operations):
                return
            rest, last = self.operations[:-kept], self.operations[-kept:]
            declared = [one for one in rest if one["op"] == "declare"]
            if self.keeps(declared + last):
                return

    def leave_out_chunks(self):
        chunk = max(1, len(self.operations) // 2)
        while not self.is_late():
            before = len(self.operations)
            at = 0
            while at < len(self.operations):
                if not self.keeps(self.operations[:at] + self.operations[at + chunk :]):
                    at += chunk
            if chunk == 1 and len(self.operations) == before:
                return
            chunk = max(1, chunk // 2)

    def leave_out_parts(self):
        """Of the lists inside of operations."""
        for place in range(len(self.operations)):
            for name in LISTS:
                self.thin(place, (name,))
                self.thin(place, ("apply", name))

    def thin(self, place, where):
        def inner(operation):
            for name in where[:-1]:
                operation = operation.get(name) or {}
            return operation

        at = 0
        while at < len(inner(self.operations[place]).get(where[-1]) or ()):
            operation = self.operations[place]
            items = inner(operation)[where[-1]]
            new = {**inner(operation), where[-1]: items[:at] + items[at + 1 :]}
            if len(where) > 1:
                new = {**operation, where[0]: new}
            if self.is_late() or not self.keeps(self.operations[:place] + [new] + self.operations[place + 1 :]):
                at += 1


def shrink(config, operations, seconds):
    """The shortest that was found, what differs in it, and how many replays that took."""
    shrinker = Shrinker(config, operations, seconds)
    if not shrinker.fails():
        return operations, f"{shrinker.tries} replays had no difference: it depends on timing", shrinker.tries
    shrinker.leave_out_beginning()
    shrinker.leave_out_chunks()
    shrinker.leave_out_parts()
    return shrinker.operations, shrinker.problem, shrinker.tries
