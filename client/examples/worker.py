"""A worker in Python: trains a small network on handwritten digits through an Espalier server, with grpcio and numpy.

    worker.py --server 127.0.0.1:7433 --data digits.csv.gz

docs/python.md says how to generate the code that this imports, and how to put a PyTorch module in the network's place.
"""

import argparse
import queue
import sys
import time

import grpc
import numpy as np
from espalier.v1 import parameter_server_pb2 as wire, types_pb2 as types
from espalier.v1.parameter_server_pb2_grpc import ParameterServerStub

CHUNK_BYTES = 1 << 20
TIMEOUT = 60  # seconds, of calls that are answered at once
PAUSES = [0.05 * 2**n for n in range(10)]  # seconds between retries, 51 in all
PINGS = [("grpc.keepalive_time_ms", 10000), ("grpc.keepalive_timeout_ms", 10000)]  # or a dead peer goes unnoticed


def chunks(message, arrays, key):
    """Messages with the arrays' bytes, in pieces that a message has room for. `key` is what names a leaf."""
    for name, array in arrays.items():
        data = array.tobytes()
        for offset in range(0, len(data), CHUNK_BYTES):
            piece = types.Chunk(offset=offset, data=data[offset : offset + CHUNK_BYTES], **{key: name})
            yield message(chunks=[piece])


class Worker:
    """A session with a server. `state` is {path: array}, as a state_dict: contiguous arrays of float32, into which each
    step writes the new weights. `frozen` has the paths of frozen leaves. What fails raises grpc.RpcError."""

    def __init__(self, address, state):
        self.stub = ParameterServerStub(grpc.insecure_channel(address, options=PINGS))
        joined = self.stub.Join(wire.JoinRequest(worker="worker.py"), wait_for_ready=True, timeout=TIMEOUT)
        self.session, self.lineage, self.sequence = joined.session, joined.lineage, 0
        reply = self.stub.Declare(self._declaration(state), timeout=TIMEOUT)
        ids = [number for run in reply.ids for number in range(run.first, run.first + run.count)]
        self.ids, self.paths = dict(zip(state, ids)), dict(zip(ids, state))
        self.memory = {self.ids[path]: memoryview(array).cast("B") for path, array in state.items()}
        self.epoch, self.frozen = 0, set()
        self._look_at_layout()
        self._open_stream()
        self.step({})  # a push of nothing, for the weights as they are: others may have trained them

    def _declaration(self, state):
        """The first worker's values become the server's; where the leaves are there already, the server's stay."""
        sizes = {"leaf_count": len(state), "total_bytes": sum(array.nbytes for array in state.values())}
        yield wire.DeclareRequest(header=wire.DeclareHeader(session=self.session, **sizes))
        for path, array in state.items():
            leaf = types.LeafSpec(path=path, shape=array.shape, dtype=types.DTYPE_F32, init={"follows": True})
            yield wire.DeclareRequest(leaves=[leaf])
        yield from chunks(wire.DeclareRequest, dict(enumerate(state.values())), "index")

    def _look_at_layout(self):
        """What was frozen and thawed since the epoch that is known; since 0: which leaves are frozen."""
        for event in self.stub.Watch(wire.WatchRequest(since_epoch=self.epoch), timeout=TIMEOUT):
            for leaf in event.leaves:
                if leaf.id in self.paths:  # not somebody else's
                    (self.frozen.add if leaf.frozen else self.frozen.discard)(self.paths[leaf.id])
        self.epoch = event.epoch

    def step(self, gradients):
        """Pushes {path: gradient} and pulls all weights. Where the connection breaks all is sent again, with the same
        sequence: the server applies a push once, and answers a retry as it answered, or would have, the first send."""
        self.sequence += 1
        wanted = {self.ids[path]: np.asarray(g, "<f4") for path, g in gradients.items() if path not in self.frozen}
        self._retry(lambda: self._exchange(wanted))

    def _retry(self, call):
        for pause in [*PAUSES, None]:
            try:
                return call()
            except grpc.RpcError as error:
                self.requests.put(None)
                self._open_stream()
                if error.code() != grpc.StatusCode.UNAVAILABLE or pause is None:
                    raise
            time.sleep(pause)

    def _open_stream(self):
        """The stream for all pushes and pulls. Its requests come from a queue, where None ends them."""
        self.requests = queue.SimpleQueue()
        self.stream = self.stub.PushPull(iter(self.requests.get, None))

    def _exchange(self, gradients):
        push = wire.PushHeader(session=self.session, sequence=self.sequence, lineage=self.lineage)
        push.leaf_count, push.total_bytes = len(gradients), sum(array.nbytes for array in gradients.values())
        self.requests.put(wire.StreamRequest(push=push))
        for request in chunks(wire.StreamRequest, gradients, "leaf_id"):
            self.requests.put(request)
        self.requests.put(wire.StreamRequest(pull=wire.PullRequest(leaf_ids=self.paths)))
        reply, has_ended = next(self.stream).push, False
        while not has_ended:
            response = next(self.stream)
            for chunk in response.chunks:
                self.memory[chunk.leaf_id][chunk.offset : chunk.offset + len(chunk.data)] = chunk.data
            has_ended = response.HasField("end")
        if reply.epoch != self.epoch:
            self._look_at_layout()

    def leave(self):
        self._retry(lambda: self.stub.Leave(wire.LeaveRequest(session=self.session), timeout=TIMEOUT))
        self.requests.put(None)


def backward(state, x, labels, frozen):
    """The loss of a network 64 -> 32 -> 10 with ReLU, and the gradients that somebody wants."""
    hidden = np.maximum(x @ state["encoder.weight"].T + state["encoder.bias"], 0)
    scores = np.exp(hidden @ state["head.weight"].T + state["head.bias"])
    guess, truth = scores / scores.sum(1, keepdims=True), np.eye(10, dtype=np.float32)[labels]
    loss, error = -np.log((guess * truth).sum(1)).mean(), (guess - truth) / len(x)
    gradients = {"head.weight": error.T @ hidden, "head.bias": error.sum(0)}
    if not {"encoder.weight", "encoder.bias"} <= frozen:  # else nothing need go back below the head
        error = error @ state["head.weight"] * (hidden > 0)
        gradients |= {"encoder.weight": error.T @ x, "encoder.bias": error.sum(0)}
    return loss, gradients


def main():
    parser = argparse.ArgumentParser(description="Trains a small network on handwritten digits.")
    parser.add_argument("--server", default="127.0.0.1:7433")
    parser.add_argument("--data", required=True, help="digits.csv.gz, of client/examples/data")
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args()
    table, random = np.loadtxt(options.data, "f4", delimiter=","), np.random.default_rng()
    shapes = {"encoder.weight": (32, 64), "encoder.bias": 32, "head.weight": (10, 32), "head.bias": 10}
    state = {path: random.uniform(-0.1, 0.1, shape).astype(np.float32) for path, shape in shapes.items()}
    try:
        worker = Worker(options.server, state)
        for step in range(options.steps):
            rows = table[random.integers(len(table), size=64)]
            loss, gradients = backward(state, rows[:, :64] / 16, rows[:, 64].astype(int), worker.frozen)
            worker.step(gradients)
            if step % 100 == 0 or step == options.steps - 1:
                print(f"step {step} loss {loss:.3f} frozen: {' '.join(sorted(worker.frozen)) or '-'}", flush=True)
        worker.leave()
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.ABORTED:  # the server has another lineage
            print("What was trained is lost: choose weights to go on from, and start again.", file=sys.stderr)
        sys.exit(f"{error.code().name}: {error.details()}")


if __name__ == "__main__":
    main()
