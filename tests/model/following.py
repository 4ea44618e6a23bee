"""What the server tells of its changes: History, against the model's records, and Watch, of which a picture of the
leaves is made that must be the model's."""

import grpc

import harness
import timing
from harness import admin, wire
from workers import Difference

EVENTS = 50  # pictures that are compared with one stream: then it is begun again from where it was
KEPT = 20  # pictures of earlier epochs


def arranged(lines):
    return sorted(lines, key=str)


def net(lines):
    """Of all lines of one thing, what it was before the first and is after the last: of several operations. How
    assignments that keep a parameter's group come about on the way is the server's."""
    found = {}
    for line in lines:
        by_path = line.field == "group" or not line.leaf_id
        key = (line.path if by_path else line.leaf_id, line.field)
        first = found.get(key, line)
        found[key] = admin.Change(path=line.path, field=line.field, **{"from": getattr(first, "from")}, to=line.to)
    return arranged(one for one in found.values() if getattr(one, "from") != one.to)


class Journal:
    def __init__(self, client):
        self.client = client
        self.known = {}  # by epoch

    def ask(self, since_epoch=0, limit=0):
        """The transactions, without their times; the pieces of long diffs put together."""
        request = admin.HistoryRequest(since_epoch=since_epoch, limit=limit)
        found = {}
        for page in self.client.admin.History(request, timeout=harness.TIMEOUT):
            for one in page.transactions:
                if not one.at_ms:
                    raise Difference(f"history: epoch {one.epoch} has no time")
                one.at_ms = 0
                if one.epoch in found:
                    found[one.epoch].changes.extend(one.changes)
                else:
                    found[one.epoch] = one
        return list(found.values())

    def compare(self, record, told=None):
        """A transaction that has just happened. told: its diff as Apply returned it, which has been compared. The order
        of the lines of a diff is the server's."""
        if record.epoch not in self.known:
            self.known = {one.epoch: one for one in self.ask(since_epoch=record.epoch - 1)}
        actual = self.known.get(record.epoch)
        if actual is None:
            raise Difference(f"history: epoch {record.epoch} is not there")
        lines = list(actual.changes)
        if told is not None and lines != told:
            raise Difference(f"history: epoch {record.epoch}: expected the diff that was returned, {told}, got {lines}")
        if record.actor == "timer" and actual.reason:
            record.reason = actual.reason  # in words of its own
        if told is None and arranged(lines) != arranged(record.changes):
            raise Difference(f"history: epoch {record.epoch}: expected {record.changes}, got {lines}")
        record.changes = lines
        if actual != record.told():
            raise Difference(f"history: expected {record.told()}, got {actual}")

    def compare_all(self, records, since_epoch, limit):
        expected = [one.told() for one in records if one.epoch > since_epoch][-limit:]
        actual = self.ask(since_epoch, limit)
        if actual != expected:
            raise Difference(f"history since {since_epoch}, {limit} at most: expected {expected}, got {actual}")


def compare_timers(client, model):
    """The list of timers that wait, in their order."""
    actual = admin.TimersResponse()
    for page in client.admin.Timers(admin.TimersRequest(), timeout=harness.TIMEOUT):
        actual.MergeFrom(page)
    expected = admin.TimersResponse(epoch=model.epoch, commit=model.commit, lineage=model.lineage)
    counts = {}
    for leaf in model.leaves.values():
        counts[leaf.param.timer] = counts.get(leaf.param.timer, 0) + 1
    for number, timer in sorted(model.timers.items()):
        left = {"commit": timer.at - model.commit, "pushes": timer.at - model.pushes}.get(timer.due, 0)
        expected.timers.add(
            id=number,
            due=timing.DUE[timer.due],
            at=timer.at,
            left=left,
            freezes=timer.frozen,
            reset_state=timer.reset_state,
            until_commit=timer.until_commit,
            for_ms=timer.for_ms,
            selection=timer.selection,
            leaves=counts[number],
            epoch=timer.epoch,
        )
    for one in actual.timers:
        if one.due == admin.TimersResponse.Timer.TIME:  # which nobody can know
            one.at = one.left = 0
    if actual != expected:
        raise Difference(f"timers: expected {expected}, got {actual}")


class Follower:
    """A stream of Watch, and the leaves as it tells of them: {id: (path, frozen, detached)}."""

    def __init__(self, address):
        self.client = harness.Client(address)
        self.leaves = {}
        self.epoch = 0
        self.compared = 0
        self.compared_epoch = 0
        self.kept = []  # (epoch, leaves)
        self.follow()

    def follow(self):
        request = wire.WatchRequest(since_epoch=self.epoch, follow=True)
        self.events = self.client.ps.Watch(request, timeout=4 * harness.TIMEOUT)

    @staticmethod
    def draw(leaves, event):
        """The picture with what the event tells."""
        for one in event.leaves:
            if one.removed:
                leaves.pop(one.id, None)
            else:
                path = one.path or leaves.get(one.id, ("?",))[0]
                leaves[one.id] = (path, one.frozen, one.detached)

    @staticmethod
    def expected(model):
        return {leaf.id: (leaf.path, leaf.param.frozen, leaf.detached) for leaf in model.leaves.values()}

    def compare(self, model):
        """All that has happened must come."""
        if self.compared_epoch == model.epoch:
            return
        self.compared_epoch = model.epoch
        self.compared += 1
        if self.compared % EVENTS == 0:
            self.events.cancel()
            self.follow()
        self.wait(model.epoch)
        if self.epoch != model.epoch:
            raise Difference(f"watch: expected epoch {model.epoch}, got {self.epoch}")
        self.check("watch", self.leaves, model)
        self.kept = [*self.kept[-KEPT:], (self.epoch, dict(self.leaves))]

    def wait(self, epoch):
        """Until the server is at this epoch, or at a later one."""
        while self.epoch < epoch:
            event = next(self.events)
            if event.epoch < self.epoch:
                raise Difference(f"watch: at epoch {self.epoch}, got {event}")
            self.draw(self.leaves, event)
            self.epoch = event.epoch

    def check(self, what, leaves, model):
        expected = self.expected(model)
        if leaves != expected:
            missing = [f"expected {number}: {one}" for number, one in expected.items() if leaves.get(number) != one]
            other = [f"got {number}: {one}" for number, one in leaves.items() if expected.get(number) != one]
            raise Difference("\n".join([f"{what}: the leaves differ at epoch {model.epoch}", *missing, *other]))

    def compare_since(self, place, model):
        """A watch that does not follow, by somebody who knows an earlier picture."""
        epoch, leaves = self.kept[place % len(self.kept)] if self.kept else (0, {})
        leaves = dict(leaves)
        for event in self.client.ps.Watch(wire.WatchRequest(since_epoch=epoch), timeout=harness.TIMEOUT):
            self.draw(leaves, event)
        self.check(f"watch since {epoch}", leaves, model)

    def compare_end(self, model):
        """The server has shut down. A timer of a time may have fired since the last look."""
        times = [timer for timer in model.timers.values() if timer.due == "time"]
        try:
            for event in self.events:
                if event.epoch == self.epoch and not event.leaves:
                    continue  # a stream that has just been begun anew says where it begins
                if len(times) > 0:
                    times.pop()
                    continue
                raise Difference(f"watch: at epoch {self.epoch}, got {event} at the end")
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise Difference(f"watch: expected UNAVAILABLE at the end, got {error.code()}") from error
