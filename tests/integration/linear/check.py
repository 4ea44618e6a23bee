"""Holds the log of `linear` against the one order that its commit numbers are, knowing nothing but the log.

    check.py LOG

Exit code 0: there is no violation; 1: there are, and the first of them are printed. What is checked:

- order: each commit number from the first line's on belongs to one push or one transaction;
- epochs: a transaction has the epoch after that of the one before it, a push that of the last transaction before it;
- time: what ended before something else began has the lower commit number. A transaction that changed nothing has none:
  there is a moment between its start and its end at which the tree was at its epoch. What began after a transaction
  had returned has no older epoch than that one;
- counts: applied, frozen, detached and absent are those of the tree that all diffs together make, and what a worker did
  not send was frozen at an epoch that it could know;
- diffs: each line says `from` what was; leaves of one parameter are frozen together; what the last operation of a
  transaction wants is so afterwards;
- values: each parameter is exactly what the pushes of that order make of it, through each leaf's view, in each group.

A parameter is two numbers: all gradients are whole multiples of a pattern (worker.c), seen straight or transposed.
"""

import re
import sys
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate

import history

MASK = (1 << 64) - 1
EXACT = {"f32": 1 << 24, "f64": 1 << 53}  # integers below are exact
RATES = {"default": 1, "two": 2, "four": 4}
BINDING = re.compile(r"parameter (\d+) \(.+\)( transposed)?")
SHOWN = 20


def pattern(row, col):
    return 1 + (2 * row + col) % 3


def factor(worker, number, leaf):
    mixed = worker * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9 + leaf * 0x94D049BB133111EB
    return ((mixed & MASK) >> 33) % 7 - 3


# ---- the tree, made again from the diffs ----


@dataclass
class Param:
    leaves: set
    primary: int
    straight: int = 0  # times the pattern, negated: what gradients added up to
    turned: int = 0  # times the pattern transposed


class Tree:
    def __init__(self, leaves, complain):
        self.leaves = leaves
        self.complain = complain
        self.index = {leaf.path: i for i, leaf in enumerate(leaves)}
        self.order = sorted(range(len(leaves)), key=lambda i: leaves[i].path.split("."))
        self.params = {leaf.param: Param({i}, i) for i, leaf in enumerate(leaves)}
        self.frozen = self.detached = 0  # sets of leaves, as bits
        self.assigned = {}  # node: group
        self.waiting = [0] * len(leaves)  # of each leaf, factors of this epoch's gradients

    def group(self, leaf):
        """The nearest assignment to what encloses the parameter's primary leaf, or to itself."""
        node = self.leaves[self.params[self.leaves[leaf].param].primary].path
        while node and node not in self.assigned:
            node = node.rpartition(".")[0]
        return self.assigned.get(node, "default")

    def settle(self):
        """Steps the parameters with what was pushed in this epoch."""
        for i, total in enumerate(self.waiting):
            if total:
                leaf, param = self.leaves[i], self.params[self.leaves[i].param]
                if leaf.transposed:
                    param.turned += total * RATES[self.group(i)]
                else:
                    param.straight += total * RATES[self.group(i)]
                if 4 * (abs(param.straight) + abs(param.turned)) >= EXACT[leaf.dtype]:
                    self.complain("the log", f"leaf {leaf.path} has numbers too large to be exact")
                self.waiting[i] = 0

    def flag(self, bits, leaf, before, after, what):
        if (before == "true") != bool(bits >> leaf & 1):
            self.complain("diffs", f"{what}: {self.leaves[leaf].path} was not {before}")
        return bits | 1 << leaf if after == "true" else bits & ~(1 << leaf)

    def bind(self, i, before, after, what):
        leaf = self.leaves[i]
        (old_id, old_turned), (new_id, new_turned) = (
            (int(match[1]), match[2] is not None) for match in map(BINDING.fullmatch, (before, after))
        )
        if (old_id, old_turned) != (leaf.param, leaf.transposed):
            self.complain("diffs", f"{what}: {leaf.path} was not bound to {before}")
        old = self.params[leaf.param]
        if new_id not in self.params:  # its own from here on, with the value as it saw it
            values = (old.turned, old.straight) if leaf.transposed else (old.straight, old.turned)
            self.params[new_id] = Param(set(), i, *values)
        old.leaves.discard(i)
        self.params[new_id].leaves.add(i)
        if not old.leaves:
            del self.params[leaf.param]
        elif old.primary == i:
            old.primary = next(other for other in self.order if other in old.leaves)
        leaf.param, leaf.transposed = new_id, new_turned

    def change(self, path, name, before, after, what):
        i = self.index.get(path)
        if name == "frozen":
            self.frozen = self.flag(self.frozen, i, before, after, what)
        elif name == "detached":
            self.detached = self.flag(self.detached, i, before, after, what)
        elif name == "parameter":
            self.bind(i, before, after, what)
        elif name == "group":
            if self.assigned.get(path, "") != before:
                self.complain("diffs", f"{what}: {path} was not assigned to {before!r}")
            self.assigned[path] = after
            if not after:
                del self.assigned[path]
        elif name != "stepped_by":  # which says what follows of the others
            self.complain("diffs", f"{what}: a field that the checker does not know: {name}")

    def replay(self, apply):
        self.settle()
        for change in apply.changes:
            self.change(*change, apply)
        for param in self.params.values():
            if len({self.frozen >> i & 1 for i in param.leaves}) != 1:
                self.complain("diffs", f"{apply}: some leaves of one parameter are frozen")
        self.hold(apply)

    # what an operation wants

    def selected(self, selection):
        found = set()
        for term in selection.split("|"):
            for i, leaf in enumerate(self.leaves):
                name = term.removeprefix("name:")
                if name in leaf.path.split(".") if name != term else (leaf.path + ".").startswith(term + "."):
                    found.add(i)
        return found

    def is_tied(self, leaf, to, turned):
        a, b = self.leaves[leaf], self.leaves[to]
        return a.param == b.param and (a.transposed != b.transposed) == turned

    def holds(self, operation):
        word, selection, *rest = operation.split()
        sel = self.selected(selection)
        if word in ("freeze", "thaw"):
            return all((self.frozen >> i & 1) == (word == "freeze") for i in sel)
        if word in ("detach", "attach"):
            return all((self.detached >> i & 1) == (word == "detach") for i in sel)
        if word == "regroup":
            return all(self.group(i) == rest[0] for i in sel)
        if word == "untie":
            return all(len(self.params[self.leaves[i].param].leaves) == 1 for i in sel)
        pairs = ((i, self.index[rest[0] + self.leaves[i].path.removeprefix(selection)]) for i in sel)
        return word == "tie" and all(self.is_tied(i, to, "transposed" in rest) for i, to in pairs)

    def hold(self, apply):
        if not self.holds(apply.operations[-1]):
            self.complain("diffs", f"{apply}: after it, `{apply.operations[-1]}` is not so")


# ---- the checks ----


class Checker:
    def __init__(self, log):
        self.log = log
        self.found = []  # (kind, text)
        self.tree = Tree(log.leaves, self.complain)
        self.first_epoch, self.first = log.begin
        self.known = {}  # by worker: the epoch of its last reply
        self.frozen_at = [0]  # by epoch, from the first on

    def complain(self, kind, text):
        self.found.append((kind, text))

    def in_order(self):
        """By commit number from the first on: a push's index, or -1 - a transaction's; None where there is neither."""
        log, first = self.log, self.first + 1
        slots = [None] * (log.end[1] - self.first)
        pushes = ((commit, i, log.pushes.text, i) for i, commit in enumerate(log.pushes.commit))
        applies = ((apply.commit, -1 - i, str, apply) for i, apply in enumerate(log.applies) if apply.commit)
        for several in pushes, applies:
            for commit, slot, text, arg in several:
                if not first <= commit <= log.end[1]:
                    self.complain("order", f"{text(arg)}: its number is not one from {first} to {log.end[1]}")
                elif slots[commit - first] is not None:
                    self.complain("order", f"{text(arg)}: its number was given twice")
                else:
                    slots[commit - first] = slot
        for commit, slot in enumerate(slots, first):
            if slot is None:
                self.complain("order", f"nothing has commit {commit}")
        return slots

    def check_push(self, i, epoch):
        pushes, tree = self.log.pushes, self.tree
        named, sent = pushes.named[i], pushes.sent[i]
        if pushes.epoch[i] != epoch:
            self.complain("epochs", f"{pushes.text(i)}: the epoch then was {epoch}")
        applied = sent & ~tree.frozen & ~tree.detached
        want = (
            applied.bit_count(),
            (sent & tree.frozen).bit_count() + (named & ~sent).bit_count(),
            (sent & ~tree.frozen & tree.detached).bit_count(),
            len(tree.leaves) - named.bit_count(),
        )
        got = (pushes.applied[i], pushes.frozen[i], pushes.detached[i], pushes.absent[i])
        if got != want:
            self.complain("counts", f"{pushes.text(i)}: applied, frozen, detached, absent are {got}, and not {want}")
        oldest = self.known.get(pushes.worker[i], self.first_epoch) - self.first_epoch
        if all(named & ~sent != named & frozen for frozen in self.frozen_at[oldest:]):
            self.complain("counts", f"{pushes.text(i)}: what it left out was not frozen at any epoch it could know")
        self.known[pushes.worker[i]] = pushes.epoch[i]
        worker, number = pushes.worker[i], pushes.number[i]
        while applied:
            leaf = (applied & -applied).bit_length() - 1
            tree.waiting[leaf] += factor(worker, number, leaf)
            applied &= applied - 1

    def walk(self, slots):
        """Everything that happened, in its order. Returns the commit at which each epoch began, and then one more."""
        log, tree = self.log, self.tree
        epoch, began = self.first_epoch, [self.first]
        latest, latest_slot = 0, None  # the last to begin, of those before
        idle = {}
        for apply in log.applies:
            if not apply.commit:
                idle.setdefault(apply.epoch, []).append(apply)
        for slot in slots:
            if slot is None:
                continue
            apply = log.applies[-1 - slot] if slot < 0 else None
            start = apply.start if apply else log.pushes.start[slot]
            end = apply.end if apply else log.pushes.end[slot]
            if end < latest:
                self.complain("time", f"{self.text(slot)} ended before {self.text(latest_slot)} began")
            if start > latest:
                latest, latest_slot = start, slot
            if not apply:
                self.check_push(slot, epoch)
                continue
            for other in idle.pop(epoch, []):
                tree.hold(other)
            epoch += 1
            if apply.epoch != epoch:
                self.complain("epochs", f"{apply}: it made epoch {epoch}")
            tree.replay(apply)
            began.append(apply.commit)
            self.frozen_at.append(tree.frozen)
        for other in idle.pop(epoch, []):
            tree.hold(other)
        for other in (other for several in idle.values() for other in several):
            self.complain("epochs", f"{other}: there was no such epoch")
        if epoch != log.end[0]:
            self.complain("epochs", f"the last epoch is {epoch}, and the server's {log.end[0]}")
        tree.settle()
        return began + [log.end[1] + 1]

    def text(self, slot):
        return str(self.log.applies[-1 - slot]) if slot < 0 else self.log.pushes.text(slot)

    def check_idle(self, began):
        """Transactions that changed nothing: at a moment of each the tree was at its epoch."""
        pushes = self.log.pushes
        changed = [apply for apply in self.log.applies if apply.commit]
        ends = [*zip(pushes.end, pushes.commit), *((apply.end, apply.commit) for apply in changed)]
        starts = [*zip(pushes.start, pushes.commit), *((apply.start, apply.commit) for apply in changed)]
        ends.sort()
        starts.sort(reverse=True)
        over = list(accumulate((commit for _, commit in ends), max))  # the last of what had ended by then
        ahead = list(accumulate((commit for _, commit in starts), min))  # the first of what began from then on
        for apply in self.log.applies:
            at = apply.epoch - self.first_epoch
            if apply.commit or not 0 <= at < len(began) - 1:
                continue
            ended = bisect_left(ends, (apply.start,))
            begun = bisect_left(starts, -apply.end, key=lambda entry: -entry[0])
            least = max(began[at], over[ended - 1] if ended else 0)
            most = min(began[at + 1], ahead[begun - 1] if begun else began[-1])
            if least >= most:
                self.complain("time", f"{apply}: the tree was at no moment of it at that epoch")

    def check_returned(self):
        """Once a transaction has returned, nobody who begins meets an older epoch."""
        pushes = self.log.pushes
        returned = sorted((apply.end, apply.epoch) for apply in self.log.applies)
        ends = [end for end, _ in returned]
        least = [0, *accumulate((epoch for _, epoch in returned), max)]
        for i, start in enumerate(pushes.start):
            if pushes.epoch[i] < least[bisect_left(ends, start)]:
                self.complain("returned", f"{pushes.text(i)} began after a later epoch was returned")
        for apply in self.log.applies:
            if apply.epoch < least[bisect_left(ends, apply.start)]:
                self.complain("returned", f"{apply} began after a later epoch was returned")

    def check_values(self):
        for leaf in self.log.leaves:
            param, transposed, numbers = self.log.values[leaf.path]
            if (param, transposed) != (leaf.param, leaf.transposed):
                self.complain("values", f"{leaf.path} is bound to parameter {param}, and not to {leaf.param}")
            own = self.tree.params[leaf.param]
            a, b = (own.turned, own.straight) if leaf.transposed else (own.straight, own.turned)
            want = [-a * pattern(r, c) - b * pattern(c, r) for r in range(leaf.rows) for c in range(leaf.cols)]
            if numbers != want:
                at = next((i for i, pair in enumerate(zip(numbers, want)) if pair[0] != pair[1]), len(want))
                self.complain("values", f"{leaf.path}: element {at} is {numbers[at:][:1]}, and not {want[at:][:1]}")


def check(log):
    """The violations, as (kind, text)."""
    checker = Checker(log)
    began = checker.walk(checker.in_order())
    checker.check_idle(began)
    checker.check_returned()
    checker.check_values()
    return checker.found


def report(log):
    """Prints what there was and what is wrong; returns the exit code."""
    found = check(log)
    for name, number in history.figures(log).items():
        print(f"{name}: {number:g}" if isinstance(number, float) else f"{name}: {number}")
    print(f"violations: {len(found)}")
    for kind, text in found[:SHOWN]:
        print(f"{kind}: {text}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(report(history.read(sys.argv[1])))
