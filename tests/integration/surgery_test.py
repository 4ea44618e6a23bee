"""docs/surgery.md keeps its word: its sessions are run again, each section on a server of its own, and print what the page
says to the byte, times, ports and ids aside.

  surgery_test.py BUILD_DIR
  surgery_test.py BUILD_DIR --update    writes what they print now into the page
"""

import itertools
import os
import re
import shlex
import tempfile

import grpc
import harness
import session
from harness import f32, leaf

IS_UPDATE = session.is_update()
PAGE = session.Page("docs", "surgery.md")
WIDTH, WORDS, LAYERS = 8, 100, 3


def tree(born_frozen):
    """The page's model, as its worker declares it: leaves and nodes."""
    layers = [f"encoder.layers.{i}" for i in range(LAYERS)]
    leaves = [leaf("encoder.embed", WORDS, WIDTH), leaf("encoder.mean", WIDTH, kind="KIND_BUFFER")]
    for layer in layers:
        leaves += [leaf(f"{layer}.{name}", WIDTH, WIDTH) for name in ("attn", "mlp")]
        leaves += [leaf(f"{layer}.norm.{name}", WIDTH) for name in ("bias", "scale")]
    leaves += [leaf("head.weight", WIDTH, WORDS), leaf("head.bias", WORDS)]
    for one in leaves:
        one.dtype = harness.types.DTYPE_F32
        one.init.normal.stddev = 0.02
    nodes = {layer: "Block" for layer in layers} | {f"{layer}.norm": "LayerNorm" for layer in layers}
    nodes = [harness.types.NodeSpec(path=path, tag=tag) for path, tag in nodes.items()]
    return leaves, nodes + [harness.types.NodeSpec(path=path, frozen=True) for path in born_frozen]


class Worker:
    """As one with the library: it leaves out what it knows to be frozen, and asks what changed when a reply has another
    epoch. Gradients are always the same."""

    def __init__(self, client, born_frozen):
        self.client = client
        leaves, nodes = tree(born_frozen)
        client.join("worker")
        client.declare(*leaves, nodes=nodes)
        paths = {client.ids[one.path]: one for one in leaves if one.kind != harness.types.KIND_BUFFER}
        self.gradients = {key: f32(*itertools.repeat(0.1, one.shape[0] * (one.shape[1:] or [1])[0])) for key, one in paths.items()}
        self.epoch, self.skipped = 0, set()
        self.look()

    def look(self):
        event = None
        for event in self.client.ps.Watch(harness.wire.WatchRequest(since_epoch=self.epoch), timeout=harness.TIMEOUT):
            for one in event.leaves:
                (self.skipped.add if one.frozen or one.removed else self.skipped.discard)(one.id)
        self.epoch = event.epoch

    def push(self):
        try:
            reply = self.client.push({key: data for key, data in self.gradients.items() if key not in self.skipped})
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
        if reply.epoch != self.epoch:
            self.look()
        return f"{reply.applied} leaves applied, {reply.frozen} frozen, {reply.detached} detached, {reply.absent} absent"

    def train(self, count):
        """What the replies said, equal ones in a row as one line."""
        told = [(len(list(same)), text) for text, same in itertools.groupby(self.push() for _ in range(count))]
        return "".join(f"{times:>3} push{'' if times == 1 else 'es'}: {text}\n" for times, text in told)


class Section:
    """A server and a worker of its own, and the commands of one section, in a directory of their own."""

    def __init__(self, test, text, directory):
        self.test = test
        self.directory = directory
        flags = shlex.split(PAGE.block("server", "sh"))[1:]
        plan = session.block(text, "plan", "text")
        if plan:
            path = os.path.join(directory, "espalier.plan")
            with open(path, "w", encoding="utf-8") as file:
                file.write(plan)
            flags.append(f"--plan={path}")
        self.server = test.server(*flags)
        self.client = test.client(self.server.address)
        self.worker = Worker(test.client(self.server.address), re.findall(r"<!-- born frozen: (\S+) -->", text))
        if not plan:
            self.worker.train(10)
        self.shell = session.Shell(directory, dict(harness.environment(), ESPALIER_SERVER=self.server.address))

    def run(self, command):
        """What it prints, but for where the directory is."""
        return self.start(command).replace(self.directory + os.sep, "")

    def start(self, command):
        """`train` is the worker's; `wait` waits for what was started with &: a watch."""
        if command.startswith("train "):
            return self.worker.train(int(command.removeprefix("train ")))
        if command == "wait":
            return self.shell.wait(self.watching)
        if command.endswith(" &"):
            self.watching = self.shell.start(command.removesuffix(" &"))
            self.test.addCleanup(self.watching.kill)
            harness.eventually(lambda: self.client.info().watches == 1, "nobody watches")
            return ""
        return self.shell.run(command)


class Surgery(harness.TestCase):
    def test_sections(self):
        sections = PAGE.sections()
        if harness.is_sanitized():  # the operations have tests of their own, which take less time
            sections = dict(list(sections.items())[:2])
        for name, text in sections.items():
            with self.subTest(section=name), tempfile.TemporaryDirectory() as directory:
                PAGE.check(text, Section(self, text, directory).run, session.masked, IS_UPDATE)


harness.main()
