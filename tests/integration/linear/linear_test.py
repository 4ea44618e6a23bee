"""Eight workers push and two operators freeze, tie and regroup: what all of them were answered agrees with one order.
And the checker that says so finds what is wrong in a log in which something is.

    linear_test.py BUILD_DIR
"""

import os
import tempfile
import unittest

import check
import history
import run
from run import harness

OPERATIONS = int(os.environ.get("LINEAR_OPERATIONS", "600"))
PLANTED = 100  # transactions of the log in which something is made wrong
TIMEOUT = 4 * harness.TIMEOUT


class TestCase(harness.TestCase):
    def record(self, operations):
        """The log of a load on a new server, and its file's path."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = os.path.join(folder.name, "log")
        server = self.server(*run.FLAGS)
        return run.record(server.address, path, operations, timeout=TIMEOUT), path


class History(TestCase):
    def test_one_order(self):
        log, _ = self.record(OPERATIONS)
        figures = history.figures(log)
        print(figures, flush=True)
        self.assertEqual(check.check(log)[: check.SHOWN], [])
        for what in "applied", "frozen", "detached", "absent", "not sent":
            self.assertGreater(figures[f"leaves {what}"], 0)
        for kind in "freeze", "thaw", "tie", "untie", "detach", "attach", "regroup":
            self.assertGreater(figures[f"in those, {kind}"], 0)
        self.assertGreater(figures["transactions"], figures["transactions that changed something"])


def changed(log):
    return [apply for apply in log.applies if apply.commit]


def last(found):
    return list(found)[-1]


def stepping(log):
    """Pushes that moved a leaf, and of which nothing that was sent was dropped."""
    p = log.pushes
    for i, sent in enumerate(p.sent):
        leaves = (leaf for leaf in range(len(log.leaves)) if sent >> leaf & 1)
        if p.applied[i] == sent.bit_count() and any(check.factor(p.worker[i], p.number[i], n) for n in leaves):
            yield i


def middle(log):
    """A push in the middle of the order."""
    return sorted(range(len(log.pushes)), key=log.pushes.commit.__getitem__)[len(log.pushes) // 2]


def swap_pushes(log):
    """A push of one epoch, and another that began after it had ended: they change places."""
    p = log.pushes
    by_epoch = {}
    for i, epoch in enumerate(p.epoch):
        by_epoch.setdefault(epoch, []).append(i)
    a, b = last((a, b) for several in by_epoch.values() for a, b in [(several[0], several[-1])] if p.end[a] < p.start[b])
    p.commit[a], p.commit[b] = p.commit[b], p.commit[a]


def swap_with_transaction(log):
    """A transaction and the push behind it change places."""
    apply, i = last((one, i) for one in changed(log) for i, c in enumerate(log.pushes.commit) if c == one.commit + 1)
    apply.commit, log.pushes.commit[i] = log.pushes.commit[i], apply.commit


def swap_transactions(log):
    a, b = changed(log)[-2:]
    a.commit, b.commit = b.commit, a.commit


def number_twice(log):
    log.pushes.commit[middle(log)] -= 1


def number_missing(log):
    log.pushes.commit[middle(log)] = log.end[1] + 1


def push_lost(log):
    """It was answered, and there is no trace of it but what it left in the values."""
    p = log.pushes
    i = last(stepping(log))
    commit = p.commit[i]
    for column in p.columns:
        del column[i]
    for j, other in enumerate(p.commit):
        p.commit[j] -= other > commit
    for apply in log.applies:
        apply.commit -= apply.commit > commit
    log.end = (log.end[0], log.end[1] - 1)


def epoch_ahead(log):
    log.pushes.epoch[middle(log)] += 1


def epoch_behind(log):
    """A push that began after a transaction had returned met the tree of before."""
    p, returned = log.pushes, {apply.epoch: apply.end for apply in changed(log)}
    i = last(i for i, start in enumerate(p.start) if start > returned.get(p.epoch[i], start))
    p.epoch[i] -= 1


def epoch_of_transaction(log):
    changed(log)[-1].epoch += 1


def counted(name, difference):
    def plant(log):
        getattr(log.pushes, name)[middle(log)] += difference

    plant.__name__ = f"{name}_{difference:+}"
    return plant


def left_out(log):
    """A worker did not send leaves that were not frozen, and counted them as frozen."""
    p = log.pushes
    i = next(stepping(log))
    p.applied[i], p.frozen[i], p.sent[i] = 0, p.frozen[i] + p.applied[i], 0


def ended_early(log):
    """A push that ended before another one began, which came before it."""
    p = log.pushes
    i = middle(log)
    before = next(j for j, commit in enumerate(p.commit) if commit == p.commit[i] - 1)
    p.end[i] = p.start[before] - 1
    p.start[i] = min(p.start[i], p.end[i])


def began_late(log):
    """A transaction that began after a push which came after it had ended."""
    one = changed(log)[len(changed(log)) // 2]
    after = min(end for commit, end in zip(log.pushes.commit, log.pushes.end) if commit > one.commit)
    one.start = after + 1
    one.end = max(one.start, one.end)


def idle_before_its_time(log):
    """A transaction that changed nothing, at an epoch that was not there yet when it returned."""
    one = next(apply for apply in log.applies if not apply.commit)
    one.epoch = log.end[0]


def idle_after_its_time(log):
    """Likewise, and the epoch was over before it began."""
    one = last(apply for apply in log.applies if not apply.commit)
    one.epoch = log.begin[0] + 1


def with_change(log, name, *to):
    """A transaction in the middle of things, and the index of one of its lines."""
    found = [
        (apply, i)
        for apply in changed(log)
        for i, change in enumerate(apply.changes)
        if change[1] == name and (not to or change[3] in to)
    ]
    return found[len(found) // 2]


def line_missing(log):
    """A leaf was frozen, and the diff does not say so."""
    apply, i = with_change(log, "frozen", "true")
    del apply.changes[i]


def line_turned(log):
    apply, i = with_change(log, "frozen")
    path, name, before, after = apply.changes[i]
    apply.changes[i] = path, name, after, before


def binding_missing(log):
    apply, i = with_change(log, "parameter")
    del apply.changes[i]


def group_missing(log):
    apply, i = with_change(log, "group", "two", "four")
    del apply.changes[i]


def value_off(log):
    log.values["wide.w"][2][-1] += 1


def value_turned(log):
    """A matrix the other way round: as if a gradient had been added without its view."""
    path = next(path for path in ("enc.w", "dec.w", "mid.w", "head.w") if any(log.values[path][2]))
    log.values[path][2].reverse()


PLANTS = {
    ("order",): [number_twice, number_missing],
    ("time",): [swap_pushes, ended_early, began_late, idle_before_its_time, idle_after_its_time],
    ("epochs",): [swap_with_transaction, swap_transactions, epoch_ahead, epoch_of_transaction],
    ("returned",): [epoch_behind],
    ("counts",): [counted(name, by) for name in ("applied", "frozen", "detached", "absent") for by in (1, -1)]
    + [left_out],
    # What a missing line leads to first depends on what follows it.
    ("diffs", "counts", "values"): [line_missing, line_turned, binding_missing, group_missing],
    ("values",): [push_lost, value_off, value_turned],
}


@unittest.skipIf(harness.is_sanitized(), "no sanitizer looks at the checker")
class Planted(TestCase):
    def test_each_is_found(self):
        log, path = self.record(PLANTED)
        self.assertEqual(check.check(log), [])
        for kinds, plants in PLANTS.items():
            for plant in plants:
                with self.subTest(plant=plant.__name__):
                    log = history.read(path)
                    plant(log)
                    self.assertTrue({kind for kind, _ in check.check(log)} & {*kinds})


harness.main()
