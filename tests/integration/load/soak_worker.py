"""A worker of the soak: pushes, pulls, leaves and joins again, and logs what happened, until its stdin ends. Killed at any
moment, it is started again with the same log, and goes on with its session: pushes that were under way are sent once
more, under their sequence, and the server says whether they were applied already.

    soak_worker.py BUILD_DIR ADDRESS LOG SEED LEAF...

SEED is the first session's, and of what it does; each later session's is one more. The log has log.h's lines for pushes
(a push's NUMBER is its sequence), and:

    session SESSION SEED       joined
    leaving                    all of its pushes are in the log
    left
    pull KIND COMMIT LEAF:VERSION:CRC ...     KIND is plain or consistent; LEAF an index
"""

import os
import random
import select
import sys
import zlib

import grpc

import recipe
from load import harness
from harness import types, wire

IN_FLIGHT_MAX = 4  # pushes on a stream that were not answered


class Log:
    """Lines, each of which is there as a whole or not at all, however the process ends."""

    def __init__(self, path):
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self.session = self.seed = 0  # of the session that goes on
        self.is_leaving = False
        self.sessions = 0
        self.pushed = set()  # sequences of that session
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                self.take(line.split())

    def take(self, words):
        if words[0] == "session":
            self.session, self.seed = int(words[1]), int(words[2])
            self.sessions += 1
            self.pushed = set()
        elif words[0] in ("leaving", "left"):
            self.is_leaving = words[0] == "leaving"
            self.session = self.session if self.is_leaving else 0
        elif words[0] == "push":
            self.pushed.add(int(words[2]))

    def write(self, *words):
        words = [str(word) for word in words]
        os.write(self.file, (" ".join(words) + "\n").encode())
        self.take(words)


class Worker:
    def __init__(self, address, path, seed, leaves):
        self.address = address
        self.leaves = [recipe.Leaf(text) for text in leaves]
        self.log = Log(path)
        self.first_seed = seed
        self.random = random.Random(f"{seed} {os.path.getsize(path)}")
        self.client = harness.Client(address)
        self.known = {}  # leaf id: parameter, version and view, and the CRC of its bytes
        self.sequence = 0

    def ask(self, method, request):
        """A call that is made again as long as the connection is cut."""
        while True:
            try:
                return method(request() if callable(request) else request, timeout=harness.TIMEOUT, wait_for_ready=True)
            except grpc.RpcError as error:
                self.check(error)

    def check(self, error):
        """A connection that is cut is no failure; all else is."""
        if error.code() != grpc.StatusCode.UNAVAILABLE:
            raise error

    # ---- sessions ----

    def begin(self):
        """Joins, or goes on with the session of the log."""
        if self.log.is_leaving:
            self.leave()
        request = wire.JoinRequest(worker=f"soak {self.first_seed}", session=self.log.session)
        reply = self.ask(self.client.ps.Join, request)
        if self.log.session == 0:
            self.log.write("session", reply.session, self.first_seed + self.log.sessions)
        self.declare()
        # What was under way when it was killed, and may still be on its way to the server: all of it is sent again.
        self.lineage = reply.lineage
        self.sequence = max(self.log.pushed, default=0)
        self.sequence = max(self.sequence, reply.last_sequence)
        if self.sequence > 0:
            self.sequence += IN_FLIGHT_MAX
        for number in range(1, self.sequence + 1):
            if number not in self.log.pushed:
                self.push(number)

    def declare(self):
        specs = [harness.leaf(leaf.path, *leaf.shape, dtype=leaf.dtype) for leaf in self.leaves]
        message = wire.DeclareRequest(header=wire.DeclareHeader(session=self.log.session), leaves=specs)
        reply = self.ask(self.client.ps.Declare, lambda: iter([message]))
        self.ids = [number for run in reply.ids for number in range(run.first, run.first + run.count)]

    def leave(self):
        self.log.write("leaving")
        self.ask(self.client.ps.Leave, wire.LeaveRequest(session=self.log.session))
        self.log.write("left")

    def join_anew(self):
        self.leave()
        self.begin()

    # ---- pushes ----

    def messages(self, number, message):
        named = recipe.named(self.leaves, self.log.seed, number)
        tensors = {
            self.ids[i]: recipe.gradient(self.leaves, i, self.log.seed, number)
            for i in range(len(self.leaves))
            if named >> i & 1
        }
        fields = {"session": self.log.session, "sequence": number}
        return harness.push_messages(tensors, self.random.choice((4099, 1 << 16, 1 << 20)), message, **fields)

    def pushed(self, reply):
        named = recipe.named(self.leaves, self.log.seed, reply.sequence)
        sent = reply.applied + reply.frozen
        if sent != named.bit_count() or sent + reply.absent != len(self.leaves):
            raise AssertionError(f"of the leaves {named:x} named: {reply}")
        counts = (reply.commit, reply.epoch, reply.applied, reply.frozen, reply.absent, int(reply.replayed))
        self.log.write("push", self.log.seed, reply.sequence, *counts, f"{named:x}", f"{named:x}")

    def push(self, number):
        self.pushed(self.ask(self.client.ps.Push, lambda: iter(self.messages(number, wire.PushRequest))))

    def next_numbers(self, count):
        self.sequence += count
        return list(range(self.sequence - count + 1, self.sequence + 1))

    def push_one(self):
        self.push(*self.next_numbers(1))

    def push_many(self):
        """Several on one stream, without waiting for answers, and a pull behind them."""
        numbers = self.next_numbers(self.random.randint(1, IN_FLIGHT_MAX))
        messages = [message for number in numbers for message in self.messages(number, wire.StreamRequest)]
        request = self.pull_request()
        messages.append(wire.StreamRequest(pull=request))
        pulled = harness.Pulled(())
        try:
            for response in self.client.ps.PushPull(iter(messages), timeout=harness.TIMEOUT, wait_for_ready=True):
                if response.HasField("push"):
                    self.pushed(response.push)
                else:
                    pulled.add(response)
            self.pulled(request, pulled)
        except grpc.RpcError as error:
            self.check(error)
            for number in numbers:
                if number not in self.log.pushed:
                    self.push(number)

    def push_after_half(self):
        """Breaks off a push in the middle, and makes it then."""
        (number,) = self.next_numbers(1)
        messages = self.messages(number, wire.PushRequest)
        feed = harness.Feed(*messages[: self.random.randint(1, len(messages))])
        call = self.client.ps.Push.future(feed, timeout=harness.TIMEOUT, wait_for_ready=True)
        harness.eventually(lambda: feed.taken > 0 or call.done(), "the first message is sent")
        call.cancel()
        feed.end()
        self.push(number)

    # ---- pulls ----

    def pull_request(self):
        request = wire.PullRequest(leaf_ids=self.ids, consistent=self.random.random() < 0.5)
        if self.random.random() < 0.5:
            request.have_lineage = self.lineage
            for leaf, (parameter, version, view, _) in self.known.items():
                request.have.add(leaf_id=leaf, parameter=parameter, version=version, view=view)
        return request

    def pulled(self, request, pulled):
        """What came is right, as far as one worker can tell, and is logged for all together to be compared."""
        for leaf, data in pulled.tensors.items():
            tensor = pulled.chunks[leaf].tensor
            crc = zlib.crc32(data)
            if leaf in self.known and tensor.version < self.known[leaf][1]:
                raise AssertionError(f"leaf {leaf} went back: {self.known[leaf]}, then version {tensor.version}")
            self.known[leaf] = (tensor.parameter, tensor.version, tensor.view, crc)
        unchanged = len(self.ids) - len(pulled.tensors)
        if (pulled.end.sent, pulled.end.unchanged) != (len(pulled.tensors), unchanged) or unchanged > len(request.have):
            raise AssertionError(f"{unchanged} leaves did not come: {pulled.end}")
        seen = [f"{i}:{self.known[leaf][1]}:{self.known[leaf][3]}" for i, leaf in enumerate(self.ids)]
        self.log.write("pull", "consistent" if request.consistent else "plain", pulled.header.commit, *seen)

    def pull(self):
        request = self.pull_request()
        try:
            responses = self.client.ps.Pull(request, timeout=harness.TIMEOUT, wait_for_ready=True)
            self.pulled(request, harness.Pulled(responses))
        except grpc.RpcError as error:
            self.check(error)

    def pull_half(self):
        """Breaks off a pull in the middle."""
        call = self.client.ps.Pull(self.pull_request(), timeout=harness.TIMEOUT, wait_for_ready=True)
        try:
            next(call)
        except grpc.RpcError as error:
            self.check(error)
        call.cancel()

    # ---- its life ----

    def heartbeat(self):
        self.ask(self.client.ps.Heartbeat, wire.HeartbeatRequest(session=self.log.session))

    def connect_anew(self):
        self.client.close()
        self.client = harness.Client(self.address)

    def run(self):
        self.begin()
        actions = {
            self.push_one: 20,
            self.push_many: 20,
            self.push_after_half: 5,
            self.pull: 30,
            self.pull_half: 5,
            self.heartbeat: 5,
            self.declare: 3,
            self.join_anew: 2,
            self.connect_anew: 2,
        }
        while not select.select([sys.stdin], [], [], 0)[0]:
            (action,) = self.random.choices(list(actions), list(actions.values()))
            action()
        self.leave()


if __name__ == "__main__":
    Worker(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]).run()
