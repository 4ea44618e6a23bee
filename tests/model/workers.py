"""A worker: its session, its stream, what it has pushed and what it has pulled."""

import harness
from harness import wire

KEPT = 80  # pushes of a session that can be sent again


class Difference(Exception):
    """The server is not as the model says."""


class Stream:
    """A PushPull stream of a worker."""

    def __init__(self, client):
        self.feed = harness.Feed()
        self.responses = client.ps.PushPull(self.feed, timeout=20 * harness.TIMEOUT)

    def reply(self):
        """Of the push that is next to be answered."""
        return next(self.responses).push

    def pulled(self):
        pulled = harness.Pulled(())
        while pulled.end is None:
            pulled.add(next(self.responses))
        return pulled

    def end(self):
        self.feed.end()
        for _ in self.responses:
            raise Difference("a stream has more than the answers that were asked for")


class Worker:
    def __init__(self, client, number):
        self.client = client
        self.session = client.join(f"worker {number}").session
        client.session = 0  # the runner numbers pushes itself
        self.sequence = 0  # the last that was committed
        self.done = []  # (sequence, messages of PushRequest, the reply expected of a retry)
        self.stream = None
        self.have = {}  # by leaf id: (parameter, version, view) as last pulled

    def remember(self, sequence, messages, reply):
        again = wire.PushReply()
        again.CopyFrom(reply)
        again.replayed = True
        self.sequence = max(self.sequence, sequence)
        self.done.append((sequence, messages, again))
        del self.done[:-KEPT]
