"""Runs operations against a real espalierd and against the model, and compares.

An operation is plain data (JSON), so that a sequence can be written down and replayed with some left out: it names leaves
by paths, epochs by what they differ from the one of now, and tensors by seeds.
"""

import difflib

import grpc
import numpy as np

import declaring
import following
import harness
import proxy
import surgery
import undoing
from harness import admin, types, wire
from following import Follower, Journal, compare_timers
from messages import as_stream, arguments_of, leaf_spec, merge, push_messages, toggle
from model import Model, Refused
from tensors import tensor
from workers import Difference, Stream, Worker

WORKERS = 3
FIRED_SECONDS = harness.TIMEOUT if harness.is_sanitized() else 15  # ample, for what takes no time
WINDOW = 64  # sequences of a session that the server remembers


class Outcome:
    """What became of an operation, for the count."""

    def __init__(self):
        self.counts = []  # (kind, accepted)
        self.traits = []  # likewise, of what is counted above

    def add(self, kind, accepted):
        self.counts.append((kind, accepted))

    def trait(self, kind, accepted):
        self.traits.append((kind, accepted))


class Runner:
    """A server, its model and its clients. `config` is plain data too."""

    def __init__(self, config):
        self.config = config
        flags = [f"--group={name}={text}" for name, text in config["groups"].items()]
        flags += [f"--assign={path}={group}" for path, group in config["assigns"].items()]
        flags += [f"--threads={config['threads']}", f"--isa={config['isa']}", "--log-level=error"]
        flags += [f"--on-nonfinite={config['nonfinite']}", "--max-tree=1GiB", "--max-staged=1GiB"]
        self.server = harness.Server(*flags, "--max-copy-on-write=1GiB")
        self.gone = {}  # removed leaves by path: (id, dtype, elements)
        try:
            self.workers = [Worker(harness.Client(self.server.address), i) for i in range(WORKERS)]
            self.client = self.workers[0].client
            info = self.client.info()
            self.model = Model(info.lineage, info.epoch, config["groups"], config["assigns"], config["nonfinite"])
            self.model.operator = self.peer()
            self.journal = Journal(self.client)
            self.follower = Follower(self.server.address)
            self.has_timers = False  # or had
            self.dry = None  # the last dry run: what was asked, and the lines that it said
        except BaseException:
            self.server.close()
            raise

    def peer(self):
        """Where operators call from."""
        (page,) = self.client.admin.Workers(admin.WorkersRequest(), timeout=harness.TIMEOUT)
        return next(one.peer for one in page.workers if one.session == self.workers[0].session)

    def close(self):
        for worker in getattr(self, "workers", []):
            worker.client.close()
        if hasattr(self, "follower"):
            self.follower.client.close()
        self.server.close()

    def finish(self):
        """The end of an episode: in order, and without a sanitizer's report."""
        for worker in self.workers:
            if worker.stream:
                worker.stream.end()
        info = self.client.info()
        if info.memory.copy_on_write != 0 or info.in_flight != 0:
            raise Difference(f"at the end something is left:\n{info}")
        for worker in self.workers:
            worker.client.close()
        self.server.stop(timeout=4 * harness.TIMEOUT)
        self.follower.compare_end(self.model)

    # ---- comparing ----

    def run(self, operation, look=True):
        """One operation and a look at everything. Returns the Outcome."""
        outcome = Outcome()
        getattr(self, "do_" + operation["op"])(operation, outcome)
        while self.model.due():
            self.fire(outcome)
        if look:
            self.compare_all()
            self.follower.compare(self.model)
            if self.has_timers:
                compare_timers(self.client, self.model)
        return outcome

    def fire(self, outcome):
        """Timers are due: the server's transaction comes by itself."""
        surgery.fire(self.model)
        outcome.add("timer", True)
        try:
            what = f"epoch {self.model.epoch}, commit {self.model.commit}: a transaction of timers"
            harness.eventually(lambda: self.client.info().epoch >= self.model.epoch, what, FIRED_SECONDS)
        except TimeoutError as error:
            raise Difference(f"timers: they do not fire: {error}") from error
        self.follower.wait(self.model.epoch)
        self.journal.compare(self.model.history[-1])

    @staticmethod
    def answer(call):
        """(reply, None) or (None, status code's name, with details)."""
        try:
            return call(), None, ""
        except grpc.RpcError as error:
            return None, error.code().name, error.details()

    @staticmethod
    def expect(call):
        try:
            return call(), None
        except Refused as refused:
            return None, refused.args[0]

    def compare(self, what, expected, expected_code, actual, code, details=""):
        """Both refused alike, or both answered alike."""
        if code != expected_code:
            raise Difference(f"{what}: expected {expected_code or 'OK'}, got {code or 'OK'}: {details or actual}")
        if expected is not None and expected != actual:
            want, got = str(expected).splitlines(), str(actual).splitlines()
            raise Difference("\n".join([f"{what}:", *difflib.unified_diff(want, got, "expected", "got", n=7)]))

    def compare_all(self):
        """Every leaf's place, flags, group, steps, version and digest, the groups, epoch and commit."""
        expected = self.model.described()
        actual = self.client.describe(digest=True)
        del actual.notes[:]
        if actual.SerializeToString() == expected:
            return
        want = admin.DescribeResponse.FromString(expected)
        if want == actual:
            return
        raise Difference("the tree differs:\n" + "\n".join(self.differences(want, actual)))

    def differences(self, want, actual):
        for name in ("epoch", "commit", "lineage", "leaf_count"):
            if getattr(want, name) != getattr(actual, name):
                yield f"{name}: expected {getattr(want, name)}, got {getattr(actual, name)}"
        found = {leaf.path: leaf for leaf in actual.leaves}
        for leaf in want.leaves:
            other = found.pop(leaf.path, None)
            if other is None:
                yield f"leaf {leaf.path} is not there"
                continue
            for field in leaf.DESCRIPTOR.fields:
                mine, theirs = getattr(leaf, field.name), getattr(other, field.name)
                if mine != theirs:
                    yield f"leaf {leaf.path}, {field.name}: expected {mine}, got {theirs}"
            if leaf.digest != other.digest:
                yield from self.difference_of_value(leaf.path)
        for path in found:
            yield f"leaf {path} is there and should not be"
        for mine, theirs in zip(want.groups, actual.groups):
            if mine != theirs:
                yield f"group: expected {mine}, got {theirs}".replace("\n", " ")
        if len(want.groups) != len(actual.groups):
            yield f"expected {len(want.groups)} groups, got {len(actual.groups)}"

    def difference_of_value(self, path):
        leaf = self.model.leaves[path]
        mine = leaf.seen(leaf.param.value)
        theirs = np.frombuffer(self.client.value(path), mine.dtype)
        places = np.flatnonzero(mine.view(f"u{mine.itemsize}") != theirs.view(f"u{mine.itemsize}"))
        if not len(places):
            yield f"leaf {path}: the value is right, so it is the state (or the step count)"
            return
        i = places[0]
        yield f"leaf {path}: {len(places)} of {mine.size} elements; first {i}: expected {mine[i]!r}, got {theirs[i]!r}"

    # ---- tensors ----

    def locate(self, path, how):
        """How a message names a leaf: (what the model is given, chunk's key, dtype, elements), or None: nobody knows
        such a leaf."""
        leaf = self.model.leaves.get(path)
        if leaf is not None:
            name = leaf.id if how == "id" else path
            return name, leaf.param.dtype, leaf.param.value.size
        if path in self.gone and how == "id":
            return self.gone[path]
        return path, "f64", 1

    def gradients(self, leaves):
        """[(name, array)] of [[path, how, kind, seed]]."""
        found = []
        for path, how, kind, seed in leaves:
            name, dtype, count = self.locate(path, how)
            if kind == "short":
                count += 1
            found.append((name, tensor(kind, seed, dtype, count)))
        return found

    # ---- pushes ----

    def header_fields(self, worker, operation):
        fields = {}
        if operation.get("session", True):
            fields = {"session": worker.session, "sequence": worker.sequence + operation.get("skip", 1)}
        if operation.get("require_epoch") is not None:
            fields["require_epoch"] = self.model.epoch + operation["require_epoch"]
        return fields

    def do_push(self, operation, outcome):
        worker = self.workers[operation["worker"]]
        grads = self.gradients(operation["leaves"])
        fields = self.header_fields(worker, operation)
        kept = push_messages(grads, operation["chunk"], **fields)
        if operation["via"] == "stream":
            reply, code, details = self.answer(lambda: self.push_on_stream(worker, kept))
        else:
            reply, code, details = self.answer(lambda: worker.client.ps.Push(iter(kept), timeout=harness.TIMEOUT))
        expected, expected_code = self.expect(
            lambda: self.model.push(grads, fields.get("sequence", 0), fields.get("require_epoch", 0))
        )
        outcome.add("push", code is None)
        traits = {kind for _, _, kind, _ in operation["leaves"]} - {"normal"}
        if "require_epoch" in fields:
            traits.add("require_epoch")
        for kind in sorted(traits):
            outcome.trait(f"push with {kind}", code is None)
        self.compare("push", expected, expected_code, reply, code, details)
        if code is None and "session" in fields:
            worker.remember(fields["sequence"], kept, expected)

    def push_on_stream(self, worker, messages):
        worker.stream = worker.stream or Stream(worker.client)
        worker.stream.feed.put(*as_stream(messages))
        return self.reply_on_stream(worker)

    def reply_on_stream(self, worker):
        try:
            return worker.stream.reply()
        except grpc.RpcError:
            worker.stream = None
            raise

    def do_retry(self, operation, outcome):
        """A push that was committed is sent again."""
        worker = self.workers[operation["worker"]]
        if len(worker.done) < operation["back"]:
            return
        sequence, messages, expected = worker.done[-operation["back"]]
        expected_code = "FAILED_PRECONDITION" if sequence + WINDOW <= worker.sequence else None
        reply, code, details = self.answer(lambda: worker.client.ps.Push(iter(messages), timeout=harness.TIMEOUT))
        outcome.add("retry", code is None)
        self.compare("retry", None if expected_code else expected, expected_code, reply, code, details)

    def do_cut(self, operation, outcome):
        """A push whose connection is cut, and which is sent again over another one until it is answered."""
        worker = self.workers[operation["worker"]]
        grads = self.gradients(operation["leaves"])
        fields = self.header_fields(worker, operation)
        messages = push_messages(grads, operation["chunk"], **fields)
        total = sum(len(one.SerializeToString()) for one in messages)
        broken = proxy.Proxy(self.server.address)
        client = harness.Client(broken.address)
        try:
            direction = proxy.TO_SERVER if operation["way"] == "there" else proxy.TO_CLIENT
            # What HTTP/2 says before the first message is some hundred bytes.
            broken.cut_after(direction, 1 + int(operation["share"] * (400 + (total if operation["way"] == "there" else 0))))
            first, code, details = self.answer(lambda: client.ps.Push(iter(messages), timeout=harness.TIMEOUT))
            if code not in (None, "UNAVAILABLE"):
                raise Difference(f"cut push: {code} {details}")
        finally:
            client.close()
            broken.close()
        for _ in range(2):
            reply, code, details = self.answer(lambda: worker.client.ps.Push(iter(messages), timeout=harness.TIMEOUT))
            if code != "ABORTED" or "was sent again" not in details:  # by the cut one, which may arrive late
                break
        expected, expected_code = self.expect(lambda: self.model.push(grads, fields.get("sequence", 0)))
        outcome.add("cut", code is None)
        if first is not None and not reply.replayed:
            raise Difference("cut push: it was answered, and was applied again")
        if reply is not None:
            reply.replayed = False
        self.compare("cut push", expected, expected_code, reply, code, details)
        worker.remember(fields["sequence"], messages, expected)

    def do_burst(self, operation, outcome):
        """Pushes that are sent without waiting, over several streams, with a transaction and a consistent pull among
        them. The commit numbers of the answers say in which order the model is to have them."""
        waiting, toggled = [], []
        for number, leaves in operation["pushes"]:
            worker = self.workers[number]
            worker.stream = worker.stream or Stream(worker.client)
            grads = self.gradients([one for one in leaves if one[0] in self.model.leaves])
            ahead = sum(one[0] is worker for one in waiting)
            fields = {"session": worker.session, "sequence": worker.sequence + 1 + ahead}
            messages = push_messages(grads, operation["chunk"], **fields)
            worker.stream.feed.put(*as_stream(messages))
            waiting.append((worker, grads, fields["sequence"], messages))
            if len(waiting) == operation["apply_after"] and operation["apply"]:
                call, stages, request = self.start_apply(operation["apply"])
            for after, kind, path in operation["toggles"]:
                if after == len(waiting):
                    toggled.append(self.start_apply(toggle(kind, path)))
            if len(waiting) == operation["pull_after"]:
                pulling = self.client.ps.Pull(wire.PullRequest(consistent=True), timeout=harness.TIMEOUT)
        events = []
        for worker, grads, sequence, messages in waiting:
            reply = self.reply_on_stream(worker)
            events.append((reply.commit, 0, "push", (worker, grads, sequence, messages, reply)))
        calls = toggled + ([(call, stages, request)] if operation["apply"] else [])
        answers = [(request, stages, self.answer(lambda: merge(call))) for call, stages, request in calls]
        made = {one.epoch: one.commit for one in self.journal.ask(self.model.epoch)}
        for one in answers:
            reply = one[2][0]
            if reply is None:
                events.append((1 << 62, 1, "apply", one))
            elif reply.commit:
                events.append((reply.commit, 0, "apply", one))
            else:  # it looked at the layout of its epoch, so it comes behind what made that
                events.append((made.get(reply.epoch, 0), 1, "apply", one))
        if operation["pull_after"]:
            pulled = harness.Pulled(pulling)
            events.append((pulled.header.commit, 2, "pull", pulled))
        for commit, place, what, event in sorted(events, key=lambda one: one[:2]):
            while self.model.due() and self.model.commit < commit - (place == 0):
                self.fire(outcome)
            if what == "push" and self.model.due():
                raise Difference(f"timers: {self.model.due()} came after the push of commit {commit}")
            getattr(self, "after_" + what)(event, outcome)

    def after_push(self, event, outcome):
        worker, grads, sequence, messages, reply = event
        expected, expected_code = self.expect(lambda: self.model.push(grads, sequence))
        outcome.add("push", True)
        self.compare("push in a burst", expected, expected_code, reply, None)
        worker.remember(sequence, messages, expected)

    def after_apply(self, event, outcome):
        request, stages, (reply, code, details) = event
        self.compare_apply(request, stages, reply, code, details, outcome)

    def after_pull(self, pulled, outcome):
        outcome.add("pull", True)
        self.compare_pull(pulled, self.model.in_order(), {})

    # ---- reads ----

    def do_pull(self, operation, outcome):
        worker = self.workers[operation["worker"]]
        request = wire.PullRequest(selection=operation["selection"], consistent=operation["consistent"])
        request.paths.extend(operation["paths"])
        have = {}
        if operation["delta"]:
            have = dict(worker.have)
            request.have_lineage = self.model.lineage
            for number, (param, version, view) in have.items():
                request.have.add(leaf_id=number, parameter=param, version=version, view=view)
        if operation["via"] == "stream":
            pulled, code, details = self.answer(lambda: self.pull_on_stream(worker, request))
        else:
            call = lambda: harness.Pulled(worker.client.ps.Pull(request, timeout=harness.TIMEOUT))
            pulled, code, details = self.answer(call)
        leaves, expected_code = self.expect(lambda: self.leaves_of_pull(operation))
        outcome.add("pull", code is None)
        self.compare("pull", None, expected_code, None, code, details)
        if code is None:
            self.compare_pull(pulled, leaves, have)
            for number, chunk in pulled.chunks.items():
                worker.have[number] = (chunk.tensor.parameter, chunk.tensor.version, chunk.tensor.view)

    def pull_on_stream(self, worker, request):
        worker.stream = worker.stream or Stream(worker.client)
        worker.stream.feed.put(wire.StreamRequest(pull=request))
        try:
            return worker.stream.pulled()
        except grpc.RpcError:
            worker.stream = None
            raise

    def leaves_of_pull(self, operation):
        if not operation["paths"] and not operation["selection"]:
            return self.model.in_order()
        leaves = []
        for path in operation["paths"]:
            if path not in self.model.leaves:
                raise Refused("NOT_FOUND")
            leaves.append(self.model.leaves[path])
        if operation["selection"]:
            leaves += self.model.select(operation["selection"])
        if len({leaf.path for leaf in leaves}) < len(leaves):
            raise Refused("INVALID_ARGUMENT")
        return leaves

    def compare_pull(self, pulled, leaves, have):
        model = self.model
        header = wire.PullHeader(
            epoch=model.epoch,
            commit=model.commit,
            lineage=model.lineage,
            leaf_count=len(leaves),
            total_bytes=sum(leaf.param.value.nbytes for leaf in leaves),
        )
        self.compare("pull's header", header, None, pulled.header, None)
        expected = model.pulled(leaves, have)
        end = wire.PullEnd(sent=len(expected), unchanged=len(leaves) - len(expected))
        self.compare("pull's end", end, None, pulled.end, None)
        if list(pulled.tensors) != list(expected):
            raise Difference(f"pull: expected leaves {list(expected)}, got {list(pulled.tensors)}")
        for number, (described, data) in expected.items():
            self.compare("pull's tensor", described, None, pulled.chunks[number].tensor, None)
            if pulled.tensors[number] != data:
                raise Difference(f"pull: leaf {number} ({model.by_id(number).path}) has other bytes")

    def do_look(self, operation, outcome):
        """What was changed, in the server's words."""
        since = max(0, self.model.epoch - operation["back"])
        self.journal.compare_all(self.model.history, since, operation["limit"])
        self.follower.compare_since(operation["picture"], self.model)
        outcome.add("look", True)

    # ---- declarations ----

    def do_declare(self, operation, outcome):
        specs, values, arrays = [], {}, {}
        for place, spec in enumerate(operation["leaves"]):
            specs.append(leaf_spec(spec))
            if spec["init"][0] == "follows":
                count = int(np.prod(spec["shape"], dtype=np.int64))
                arrays[place] = tensor("normal", spec["init"][3], spec["dtype"], count)
                values[spec["path"]] = arrays[place].tobytes()
        nodes = [types.NodeSpec(**node) for node in operation["nodes"]]
        client = self.workers[operation["worker"]].client
        reply, code, details = self.answer(lambda: client.declare(*specs, nodes=nodes, values=values))
        declared = lambda: declaring.declare(self.model, operation["leaves"], operation["nodes"], arrays)
        known = self.model.epoch
        expected, expected_code = self.expect(declared)
        outcome.add("declare", code is None)
        if code is None:
            ids = [number for run in reply.ids for number in range(run.first, run.first + run.count)]
            del reply.ids[:], reply.notes[:]
            if expected is not None and ids != expected[1]:
                raise Difference(f"declare: expected ids {expected[1]}, got {ids}")
        self.compare("declare", expected and expected[0], expected_code, reply, code, details)
        if self.model.epoch != known:
            self.journal.compare(self.model.history[-1])

    # ---- transactions ----

    def start_apply(self, operation):
        """The call, the stages by operation, and what the model is to be asked."""
        messages, stages = [], {}
        operations = [self.at_its_time(one) for one in operation["operations"]]
        for place, one in enumerate(operations):
            ((kind, arguments),) = one.items()
            if kind == "set":
                arrays = {}
                for path, seed in arguments["values"].items():
                    if path in self.model.leaves:
                        leaf = self.model.leaves[path]
                        arrays[path] = tensor("normal", seed, leaf.param.dtype, leaf.param.value.size)
                stage = self.stage(arrays)
                stages[place] = {self.model.leaves[path].id: array for path, array in arrays.items()}
                arguments = {**{k: v for k, v in arguments.items() if k != "values"}, "stage": stage}
            messages.append(admin.Operation(**{kind: arguments_of(kind, arguments)}))
        request = {
            "if_epoch": self.model.epoch + operation["if_epoch"] if operation["if_epoch"] is not None else 0,
            "dry_run": operation["dry"],
            "key": operation["key"],
            "max_leaves": operation["max_leaves"],
            "reason": operation.get("reason", ""),
        }
        message = admin.ApplyRequest(
            operations=messages,
            if_epoch=request["if_epoch"],
            dry_run=request["dry_run"],
            idempotency_key=request["key"],
            max_leaves=request["max_leaves"],
            reason=request["reason"],
        )
        request["operations"] = operations
        return self.client.admin.Apply(message, timeout=harness.TIMEOUT), stages, request

    def at_its_time(self, operation):
        """With commit numbers where it has distances to the one of now, and a timer's id where it has its place."""
        ((kind, arguments),) = operation.items()
        if kind == "cancel_timer":
            waiting = sorted(self.model.timers)
            number = waiting[arguments["place"] % len(waiting)] if waiting else arguments["place"]
            return {kind: {"timer": number}}
        times = {name: self.model.commit + arguments[name] for name in ("at_commit", "until_commit") if name in arguments}
        self.has_timers = self.has_timers or bool(times) or "for_ms" in arguments or "one_by_one" in arguments
        return {kind: {**arguments, **times}} if times else operation

    def compare_dry(self, request, reply):
        """What a dry run said, the same transaction does at the same epoch, line by line."""
        lines = [line.SerializeToString() for line in reply.changes]
        asked = (request["operations"], reply.epoch - (reply.commit != 0))
        if request["dry_run"]:
            self.dry = (asked, lines)
        elif self.dry and self.dry[0] == asked and self.dry[1] != lines:
            raise Difference(f"a dry run said {len(self.dry[1])} lines that are not those of the real call:\n{reply}")

    def compare_undo(self, operations, expected, reply):
        """Of an undo alone: what it does not bring back is said, and of the last transaction that is all that differs
        from before."""
        if expected is None or [next(iter(one)) for one in operations] != ["undo"]:
            return
        epoch = operations[0]["undo"]["epoch"]
        history = self.model.history[: -1 if reply.commit else None]
        record = next(one for one in reversed(history) if epoch in (0, one.epoch))
        if undoing.loses(record.changes) and not reply.notes:
            raise Difference(f"undo: nothing is said of what is lost of {record.changes}")
        before = record.before if reply.commit and record is history[-1] else None
        if before and undoing.brings_all_back(before, self.model) and before != self.model.picture():
            lines = "\n".join(f"{one.path} {one.field}: {undoing.was(one)} -> {one.to}" for one in record.changes)
            raise Difference(f"undo: it does not bring back {before}\nbut {self.model.picture()}\nof\n{lines}")

    def stage(self, arrays):
        if not arrays:
            return 0
        messages = push_messages(list(arrays.items()), 0, wire.StageRequest, "header")
        return self.client.ps.Stage(iter(messages), timeout=harness.TIMEOUT).stage

    def do_apply(self, operation, outcome):
        call, stages, request = self.start_apply(operation)
        reply, code, details = self.answer(lambda: merge(call))
        self.compare_apply(request, stages, reply, code, details, outcome)

    def compare_apply(self, request, stages, reply, code, details, outcome):
        known = request["key"] in self.model.keys
        asked = {name: request[name] for name in ("if_epoch", "dry_run", "key", "max_leaves", "reason")}
        before = {leaf.path: (leaf.id, leaf.param.dtype, leaf.param.value.size) for leaf in self.model.leaves.values()}
        values = {place: {leaf: array.copy() for leaf, array in arrays.items()} for place, arrays in stages.items()}
        expected, expected_code = self.expect(
            lambda: surgery.apply(self.model, request["operations"], values, **asked)
        )
        for one in request["operations"]:
            outcome.add("dry run" if request["dry_run"] else next(iter(one)), code is None)
        if known:
            outcome.trait("same key again", code is None)
        if request["if_epoch"]:
            outcome.trait("if_epoch", code is None)
        if reply is not None:
            if not known:
                self.compare_undo(request["operations"], expected, reply)
            del reply.notes[:]
            self.compare_dry(request, reply)
            told = list(reply.changes)
        if expected is not None and reply is not None:
            expected = admin.ApplyResponse.FromString(expected.SerializeToString())
            kinds = [next(iter(one)) for one in request["operations"]]
            alike = following.arranged if len(kinds) == 1 and kinds != ["undo"] else following.net
            for one in (expected, reply):  # the model has them in an order of its own
                lines = alike(one.changes)
                del one.changes[:]
                one.changes.extend(lines)
        kinds = ", ".join(next(iter(one)) for one in request["operations"])
        self.compare(f"apply of {kinds}", expected, expected_code, reply, code, details)
        if reply is not None and reply.commit and not known:
            self.journal.compare(self.model.history[-1], told)
        for path, known_as in before.items():
            if path not in self.model.leaves:
                self.gone[path] = known_as
