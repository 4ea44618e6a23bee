"""An unmodified Python client, grpcio and code generated from our .proto: everything that this release does, each call
in its plain form, over TCP and over a Unix socket; and every part of the protocol that is not built yet says so.

    client_test.py BUILD_DIR
"""

import tempfile

import grpc

import harness
from harness import Feed, Pulled, admin, eventually, f32, f64, from_f32, from_f64, leaf, push_header, types, wire

UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED
NOT_FOUND = grpc.StatusCode.NOT_FOUND
INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT
FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
ABORTED = grpc.StatusCode.ABORTED
TREE = (
    leaf("enc.w", 2, 3, init={"follows": True}),
    leaf("enc.b", 3, dtype="DTYPE_F32", init={"constant": 0.5}),
    leaf("enc.mean", 3, kind="KIND_BUFFER", tag="BatchNorm"),
    leaf("head.w", 4, group="fast", frozen=True),
    leaf("head.b", init={"follows": True}),
)
VALUES = {"enc.w": f64(1, 2, 3, 4, 5, 6), "head.b": f64(7)}


class ClientCase(harness.TestCase):
    listen = "127.0.0.1:0"

    def setUp(self):
        groups = ("--group=default=sgd(lr=1)", "--group=fast=sgd(lr=10, momentum=0.5)")
        address = self.server(*groups, listen=(self.listen,)).address
        self.c = self.client(address)
        self.other = self.client(address)


class Calls(ClientCase):
    def declare(self):
        return self.c.declare(*TREE, values=VALUES, chunk_bytes=7)

    def infos(self, selection="", **fields):
        return {info.path: info for info in self.c.describe(selection, **fields).leaves}

    def test_join_heartbeat_leave(self):
        joined = self.c.join("anna")
        self.assertNotEqual((joined.session, joined.lineage), (0, 0))
        self.assertEqual((joined.last_sequence, joined.in_flight_max, joined.lease_ms), (0, 64, 30000))
        self.assertGreaterEqual(joined.chunk_bytes_max, 1 << 20)
        self.assertEqual(self.c.info().sessions, 1)
        self.c.declare(leaf("w", 1))
        self.c.push({"w": f64(1)})
        beat = self.c.ps.Heartbeat(wire.HeartbeatRequest(session=joined.session))
        info = self.c.info()
        self.assertEqual((beat.lineage, beat.epoch, beat.commit), (joined.lineage, info.epoch, info.commit))
        resumed = self.other.join(session=joined.session)
        self.assertEqual((resumed.session, resumed.last_sequence), (joined.session, 1))
        self.assertEqual(self.c.info().sessions, 1)
        self.c.ps.Leave(wire.LeaveRequest(session=joined.session))
        self.assertEqual(self.c.info().sessions, 0)
        unknown = f"session {joined.session:016x} is unknown"
        self.c.ps.Leave(wire.LeaveRequest(session=joined.session))  # again: the reply may have got lost
        heartbeat, join = self.c.ps.Heartbeat, self.c.join
        self.assert_fails(FAILED_PRECONDITION, unknown, heartbeat, wire.HeartbeatRequest(session=joined.session))
        self.assert_fails(FAILED_PRECONDITION, unknown, join, session=joined.session)
        self.assert_fails(FAILED_PRECONDITION, unknown, self.c.push, {"w": f64(1)})

    def test_declare_and_describe(self):
        reply = self.declare()
        self.assertEqual((reply.added, reply.epoch), (5, self.c.info().epoch))
        self.assertEqual(len(set(self.c.ids.values())), 5)
        described = self.c.describe(digest=True)
        infos = {info.path: info for info in described.leaves}
        self.assertEqual(list(infos), sorted(infos))
        self.assertEqual(described.leaf_count, 5)
        self.assertEqual(
            {group.name: (group.expression, group.parameters) for group in described.groups},
            {"default": ("sgd(lr=1)", 4), "fast": ("sgd(lr=10, momentum=0.5)", 1)},
        )
        w, b, mean, head = infos["enc.w"], infos["enc.b"], infos["enc.mean"], infos["head.w"]
        self.assertEqual((w.id, list(w.shape), w.dtype, w.bytes), (self.c.ids["enc.w"], [2, 3], types.DTYPE_F64, 48))
        self.assertEqual((b.dtype, b.bytes, b.kind, b.group), (types.DTYPE_F32, 12, types.KIND_TRAINED, "default"))
        self.assertEqual((mean.kind, mean.tag, mean.state_bytes), (types.KIND_BUFFER, "BatchNorm", 0))
        self.assertEqual((head.group, head.frozen, head.state_bytes), ("fast", True, 64))
        self.assertEqual(list(infos["head.b"].shape), [])
        self.assertEqual({len(info.digest) for info in infos.values()} | {len(described.digest)}, {16})
        self.assertEqual(list(self.infos("enc.*")), ["enc.b", "enc.mean", "enc.w"])
        self.assertEqual(list(self.infos("**.b")), ["enc.b", "head.b"])

    def test_selectors(self):
        self.declare()
        for selector, paths in {
            "enc & !name:{b,mean}": ["enc.w"],
            "tag:Batch* | group:fast": ["enc.mean", "head.w"],
            "frozen | kind:buffer & rank:1": ["enc.mean", "head.w"],
            "(head | dtype:f32) & size<4": ["enc.b", "head.b"],
        }.items():
            self.assertEqual(list(self.infos(selector)), paths)
        self.assert_fails(INVALID_ARGUMENT, "^selector, column 7: ", self.infos, "enc > [a]")
        self.assert_fails(NOT_FOUND, '"tag:BatchNrom"; the tags are: "BatchNorm"$', self.c.freeze, "tag:BatchNrom")
        both = 'no leaf matches "enc & head": 3 match "enc", 2 match "head", none matches both$'
        self.assert_fails(NOT_FOUND, both, self.c.freeze, "enc & head")
        self.assert_fails(INVALID_ARGUMENT, 'no selection is named "backbone"', self.c.freeze, "@backbone")

    def test_declare_again_joins(self):
        self.declare()
        before = self.c.digest()
        epoch = self.c.info().epoch
        reply = self.other.declare(*TREE, values={path: bytes(len(data)) for path, data in VALUES.items()})
        self.assertEqual((reply.added, reply.epoch, self.other.ids), (0, epoch, self.c.ids))
        self.assertEqual(self.c.digest(), before)
        self.assertEqual(self.other.declare(leaf("enc.w", 2, 3), leaf("new", 1)).added, 1)
        self.assertEqual(self.other.ids["enc.w"], self.c.ids["enc.w"])
        clash = r'leaf "enc.w" is f64 \[2, ?3\].* declared as f64 \[3, ?2\]'
        self.assert_fails(INVALID_ARGUMENT, clash, self.c.declare, leaf("enc.w", 3, 2), leaf("never", 1))
        self.assertNotIn("never", self.infos())

    def test_nodes(self):
        nodes = [types.NodeSpec(path="enc", group="fast", frozen=True)]
        self.c.declare(leaf("enc.w", 1), leaf("head", 1), nodes=nodes)
        self.c.declare(leaf("enc.later", 1))
        infos = {path: (info.group, info.frozen) for path, info in self.infos().items()}
        self.assertEqual(
            infos, {"enc.w": ("fast", True), "enc.later": ("fast", False), "head": ("default", False)}
        )

    def test_push_and_pull(self):
        self.declare()
        self.c.join()
        reply = self.c.push({"enc.w": f64(1, 1, 1, 2, 2, 2), self.c.ids["enc.b"]: f32(0, 1, 2)})
        self.assertEqual((reply.sequence, reply.applied, reply.frozen, reply.absent), (1, 2, 0, 2))
        reply = self.c.push({"head.w": f64(1, 2, 3, float("nan")), "head.b": f64(1)})
        self.assertEqual((reply.sequence, reply.applied, reply.frozen, reply.absent), (2, 1, 1, 2))
        empty = self.c.push({})
        self.assertEqual((empty.commit, empty.applied, empty.absent), (reply.commit + 1, 0, 4))
        ids, info = self.c.ids, self.c.info()
        everything = self.c.pull()
        self.assertEqual(list(everything.tensors), [ids[path] for path in sorted(ids)])
        self.assertEqual((everything.header.commit, everything.header.epoch), (info.commit, info.epoch))
        self.assertEqual((everything.header.leaf_count, everything.header.total_bytes), (5, 48 + 12 + 24 + 32 + 8))
        self.assertEqual((everything.end.sent, everything.end.unchanged), (5, 0))
        self.assertEqual(from_f64(everything.tensors[ids["enc.w"]]), [0, 1, 2, 2, 3, 4])
        self.assertEqual(from_f32(everything.tensors[ids["enc.b"]]), [0.5, -0.5, -1.5])
        self.assertEqual(from_f64(everything.tensors[ids["head.w"]]), [0, 0, 0, 0])
        self.assertEqual(from_f64(everything.tensors[ids["head.b"]]), [6])
        tensor = everything.chunks[ids["enc.w"]].tensor
        self.assertEqual((tensor.dtype, list(tensor.shape), tensor.bytes), (types.DTYPE_F64, [2, 3], 48))
        self.assertEqual(tensor.version, self.infos()["enc.w"].version)
        by_id = self.c.pull(leaf_ids=[ids["head.b"], ids["enc.b"]], paths=["head.w"], selection="enc.w")
        self.assertEqual(list(by_id.tensors), [ids[path] for path in ("head.b", "enc.b", "head.w", "enc.w")])
        for number, data in by_id.tensors.items():
            self.assertEqual(data, everything.tensors[number])
        self.assert_fails(NOT_FOUND, "enc.x.*nearest.*enc.w", self.c.pull, paths=["enc.x"])
        self.assert_fails(NOT_FOUND, "12345", self.c.pull, leaf_ids=[12345])
        self.assert_fails(NOT_FOUND, "nosuch", self.c.pull, selection="nosuch")
        self.assert_fails(INVALID_ARGUMENT, "enc.w", self.c.pull, paths=["enc.w", "enc.w"])

    def test_large_tensor(self):
        """Of many messages each way, not a multiple of anything."""
        count = 700001
        values = [float(i) for i in range(count)]
        self.c.declare(leaf("w", count, init={"follows": True}), values={"w": f64(*values)})
        self.c.push({"w": f64(*values)}, chunk_bytes=(1 << 20) - 3)
        self.assertEqual(set(from_f64(self.c.value("w"))), {0.0})

    def test_delta_pull(self):
        """What has not changed is not sent: plain and consistent, on its own and on a stream."""
        ids = self.declare() and self.c.ids
        for consistent in (False, True):
            first = self.c.pull(consistent=consistent)
            self.assertEqual((first.end.sent, first.end.unchanged), (5, 0))
            have = [
                {"leaf_id": id, "parameter": chunk.tensor.parameter, "version": chunk.tensor.version}
                for id, chunk in first.chunks.items()
            ]
            known = {"have_lineage": first.header.lineage, "have": have, "consistent": consistent}
            nothing = self.c.pull(**known)
            self.assertEqual((nothing.end.sent, nothing.end.unchanged, nothing.tensors), (0, 5, {}))
            self.assertEqual((nothing.header.leaf_count, nothing.header.total_bytes),
                             (first.header.leaf_count, first.header.total_bytes))
            self.c.freeze("enc.w")
            self.other.ids = self.c.ids
            self.other.push({"enc.w": f64(*range(6)), "enc.b": f32(1, 2, 3)})
            requests = [wire.StreamRequest(pull=wire.PullRequest(**known))]
            changed = Pulled(self.c.ps.PushPull(iter(requests), timeout=10))
            self.assertEqual((changed.end.sent, changed.end.unchanged), (1, 4))
            self.assertEqual(list(changed.tensors), [ids["enc.b"]])
            self.assertEqual(changed.tensors[ids["enc.b"]], self.c.value("enc.b"))
            self.assertEqual(self.c.pull(**{**known, "have_lineage": 1}).end.sent, 5)
            self.c.thaw("enc.w")
        self.assertEqual(self.c.info().memory.copy_on_write, 0)

    def test_push_pull(self):
        """Pipelined: 100 pushes, each with a pull behind it, are sent before any answer is read."""
        self.c.declare(leaf("w", 1000), leaf("b", 1))
        self.c.join()
        requests = []
        for _ in range(100):
            tensors = {self.c.ids["w"]: f64(*[1.0] * 1000)}
            requests += harness.push_messages(tensors, 3001, wire.StreamRequest, **self.c.next_push())
            requests[-1].pull.CopyFrom(wire.PullRequest(paths=["w"]))
        responses = iter(list(self.c.ps.PushPull(iter(requests), timeout=harness.TIMEOUT)))
        last = 0
        for sequence in range(1, 101):
            response = next(responses)
            self.assertEqual((response.push.sequence, response.push.applied), (sequence, 1))
            pulled = Pulled([response])
            while pulled.end is None:
                pulled.add(next(responses))
            self.assertEqual(pulled.header.commit, response.push.commit)
            # The push before it at least, perhaps some that were sent after it: but of each all or nothing.
            (value,) = set(from_f64(pulled.tensors[self.c.ids["w"]]))
            self.assertIn(-value, range(max(sequence, last), 101))
            last = int(-value)
        self.assertEqual(last, 100)
        self.assertIsNone(next(responses, None))

    def test_push_pull_one_message(self):
        """A push's header and chunks, and the pull after it, in one message; the stream stays open for the next."""
        self.c.declare(leaf("w", 2))
        feed = Feed()
        call = self.c.ps.PushPull(feed, timeout=harness.TIMEOUT)
        for count in range(1, 4):
            tensors = {"w": f64(1, 2)}
            request = {"push": push_header(tensors), "chunks": harness.chunks_of(tensors), "pull": {"paths": ["w"]}}
            feed.put(wire.StreamRequest(**request))
            pushed = next(call)
            pulled = Pulled([pushed])  # whose first message has the push's reply, too
            self.assertEqual((pushed.push.applied, pushed.header.commit), (1, pushed.push.commit))
            while pulled.end is None:
                pulled.add(next(call))
            self.assertEqual(from_f64(*pulled.tensors.values()), [-count, -2 * count])
        feed.end()
        self.assertEqual(list(call), [])
        self.assertEqual(call.code(), grpc.StatusCode.OK)

    def test_push_pull_error_after_answers(self):
        """The answers before the request that fails come first."""
        self.c.declare(leaf("w", 1))
        requests = harness.push_messages({"w": f64(1)}, message=wire.StreamRequest)
        requests += harness.push_messages({"w": f64(float("inf"))}, message=wire.StreamRequest)
        requests += harness.push_messages({"w": f64(1)}, message=wire.StreamRequest)
        call = self.c.ps.PushPull(iter(requests), timeout=harness.TIMEOUT)
        self.assertEqual(next(call).push.applied, 1)
        self.assert_fails(INVALID_ARGUMENT, "^leaf w: element 0 of the gradient is \\+infinity$", next, call)
        self.assertEqual(from_f64(self.c.value("w")), [-1])

    def test_push_pull_error_after_joined_answer(self):
        """A pull that fails does not take the reply along of the push that it came with."""
        self.c.declare(leaf("w", 1))
        requests = harness.push_messages({"w": f64(1)}, message=wire.StreamRequest)
        requests[-1].pull.CopyFrom(wire.PullRequest(paths=["v"]))
        call = self.c.ps.PushPull(iter(requests), timeout=harness.TIMEOUT)
        self.assertEqual(next(call).push.applied, 1)
        self.assert_fails(NOT_FOUND, "v", next, call)
        self.assertEqual(from_f64(self.c.value("w")), [-1])

    def test_freeze_and_thaw(self):
        self.declare()
        epoch = self.c.info().epoch
        dry = self.c.freeze("enc", dry_run=True)
        self.assertEqual((dry.dry_run, dry.commit, dry.epoch, dry.matched), (True, 0, epoch, 3))
        self.assertEqual([change.path for change in dry.changes], ["enc.b", "enc.mean", "enc.w"])
        reply = self.c.freeze("enc", if_epoch=dry.epoch, reason="the encoder is good", max_leaves=3)
        self.assertEqual((reply.epoch, reply.commit, reply.matched), (epoch + 1, self.c.info().commit, 3))
        change = {"path": "enc.w", "leaf_id": self.c.ids["enc.w"], "field": "frozen", "from": "false", "to": "true"}
        self.assertEqual(reply.changes[2], admin.Change(**change))
        again = self.c.freeze("enc")
        self.assertEqual((again.epoch, again.commit, len(again.changes)), (epoch + 1, 0, 0))
        before = self.c.digest("enc")
        pushed = self.c.push({"enc.w": f64(1, 1, 1, 1, 1, 1), "enc.b": f32(1, 1, 1), "head.b": f64(1)})
        self.assertEqual((pushed.applied, pushed.frozen, pushed.absent, pushed.epoch), (1, 2, 1, epoch + 1))
        self.assertEqual(self.c.digest("enc"), before)
        self.assertEqual(self.c.info().frozen, 4)
        self.assert_fails(ABORTED, "epoch", self.c.thaw, "enc", if_epoch=epoch)
        self.assert_fails(FAILED_PRECONDITION, "3 leaves, more than the 2", self.c.thaw, "enc", max_leaves=2)
        self.assert_fails(NOT_FOUND, 'nearest: "enc"', self.c.freeze, "encc")
        both = self.c.apply({"thaw": {"selection": "enc.b"}}, {"thaw": {"selection": "head.w", "reset_state": True}})
        self.assertEqual(both.epoch, epoch + 2)
        self.assertEqual({path for path, info in self.infos().items() if info.frozen}, {"enc.w", "enc.mean"})
        failing = ({"thaw": {"selection": "enc.w"}}, {"freeze": {"selection": "nosuch"}})
        self.assert_fails(NOT_FOUND, "operation 2 of 2: .*nosuch", self.c.apply, *failing)
        self.assertTrue(self.infos()["enc.w"].frozen)

    def test_idempotency_key(self):
        self.declare()
        first = self.c.freeze("enc", idempotency_key="night shift")
        self.c.thaw("enc")
        again = self.c.freeze("enc", idempotency_key="night shift")
        self.assertEqual((again.epoch, again.commit), (first.epoch, first.commit))
        self.assertFalse(self.infos()["enc.w"].frozen)

    def test_set(self):
        self.declare()
        self.c.push({"head.b": f64(1)})
        staged = self.c.stage({"head.w": f64(1, 2, 3, 4), self.c.ids["enc.mean"]: f64(5, 6, 7)}, chunk_bytes=5)
        self.assertGreater(self.c.info().memory.staged, 0)
        self.assertGreater(staged.expires_ms, 0)
        lacking = {"set": {"selection": "enc", "stage": staged.stage}}
        self.assert_fails(FAILED_PRECONDITION, "leaf enc.b .*no value", self.c.apply, lacking)
        reply = self.c.apply(
            {"set": {"selection": "head.w", "stage": staged.stage}},
            {"set": {"selection": "enc.mean", "stage": staged.stage}},
        )
        self.assertEqual(sorted(change.path for change in reply.changes), ["enc.mean", "head.w"])
        self.assertEqual(from_f64(self.c.value("head.w")), [1, 2, 3, 4])  # frozen, and set all the same
        self.assertEqual(from_f64(self.c.value("enc.mean")), [5, 6, 7])
        used = {"set": {"selection": "head.w", "stage": staged.stage}}
        self.assert_fails(FAILED_PRECONDITION, f"no stage {staged.stage}", self.c.apply, used)

    def test_require_epoch_and_lineage(self):
        self.declare()
        epoch, lineage = self.c.info().epoch, self.c.info().lineage
        self.assertEqual(self.c.push({"head.b": f64(1)}, require_epoch=epoch, lineage=lineage).applied, 1)
        before = self.c.digest()
        self.assert_fails(ABORTED, "epoch", self.c.push, {"head.b": f64(1)}, require_epoch=epoch + 1)
        self.assert_fails(ABORTED, f"{lineage:016x}", self.c.push, {"head.b": f64(1)}, lineage=lineage ^ 1)
        self.assertEqual(self.c.digest(), before)

    def test_sequences(self):
        self.declare()
        self.c.join()
        first = self.c.push({"head.b": f64(1)}, session=self.c.session, sequence=1)
        again = self.c.push({"head.b": f64(1)}, session=self.c.session, sequence=1)
        self.assertEqual((again.commit, again.replayed), (first.commit, True))
        self.c.push({"head.b": f64(1)}, session=self.c.session, sequence=100)
        old = {"session": self.c.session, "sequence": 2}
        self.assert_fails(FAILED_PRECONDITION, "sequence 2 is older", self.c.push, {"head.b": f64(1)}, **old)
        self.assert_fails(INVALID_ARGUMENT, "sequence", self.c.push, {"head.b": f64(1)}, session=self.c.session)
        self.assert_fails(INVALID_ARGUMENT, "session", self.c.push, {"head.b": f64(1)}, sequence=5)
        self.assertEqual(from_f64(self.c.value("head.b")), [5])

    def test_a_retry_takes_the_place_of_its_original(self):
        self.declare()
        self.c.join()
        messages = harness.push_messages({"enc.w": f64(1, 1, 1, 1, 1, 1)}, 8, **self.c.next_push())
        feed = Feed(*messages[:3])
        original = self.c.ps.Push.future(feed, timeout=harness.TIMEOUT)
        eventually(lambda: self.c.info().bytes_pushed >= sum(map(len, VALUES.values())) + 16, "arrival")
        retried = self.other.ps.Push(iter(messages), timeout=harness.TIMEOUT)
        self.assertEqual((retried.applied, retried.replayed), (1, False))
        self.assert_fails(ABORTED, "sequence 1 was sent again", original.result)
        feed.end()
        self.assertEqual(from_f64(self.c.value("enc.w")), [0, 1, 2, 3, 4, 5])

    def test_server_info(self):
        self.declare()
        self.c.join()
        self.c.push({"head.b": f64(1)})
        self.c.pull()
        info = self.c.info()
        self.assertEqual((info.leaves, info.parameters, info.elements, info.frozen), (5, 5, 6 + 3 + 3 + 4 + 1, 1))
        self.assertEqual((info.mode, info.sessions, info.pushes_applied, info.pushes_refused), ("async", 1, 1, 0))
        self.assertEqual((info.pulls, info.draining), (1, False))
        # One momentum of 32 bytes, which takes a cache line.
        self.assertEqual((info.memory.parameters, info.memory.state, info.memory.staged), (124, 64, 0))
        self.assertGreater(info.memory.staged_max, 0)
        self.assertIn(info.isa, ("sse2", "avx2", "avx512"))
        self.assertRegex(info.version, r"^\d+\.\d+\.\d+$")

    def test_watch(self):
        self.declare()
        watch = lambda epoch: list(self.c.ps.Watch(wire.WatchRequest(since_epoch=epoch), timeout=harness.TIMEOUT))
        epoch = self.c.info().epoch
        paths = {one.path: one.frozen for event in watch(0) for one in event.leaves}
        self.assertEqual(paths, {spec.path: spec.frozen for spec in TREE})
        (nothing,) = watch(epoch)
        self.assertEqual((nothing.epoch, len(nothing.leaves)), (epoch, 0))
        self.c.freeze("enc.w")
        self.c.thaw("head.w")
        (event,) = watch(epoch)
        self.assertEqual((event.epoch, event.lineage), (epoch + 2, self.c.info().lineage))
        self.assertEqual(
            {one.id: one.frozen for one in event.leaves}, {self.c.ids["enc.w"]: True, self.c.ids["head.w"]: False}
        )
        (event,) = watch(epoch + 1)
        self.assertEqual([one.id for one in event.leaves], [self.c.ids["head.w"]])


class OverUnixSocket(Calls):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.listen = f"unix:{folder.name}/socket"
        super().setUp()


class NotBuilt(ClientCase):
    def setUp(self):
        super().setUp()
        self.c.declare(leaf("net.w", 2, 2), leaf("net.b", 2))
        self.before = self.c.digest()

    def refuses(self, message, call, *arguments, **keywords):
        self.assert_fails(UNIMPLEMENTED, message, call, *arguments, **keywords)

    def tearDown(self):
        self.assertEqual(self.c.digest(), self.before)
        super().tearDown()

    def test_methods(self):
        refuses, service = self.refuses, "/espalier.v1.Admin/"
        refuses(f"^{service}Save is not built yet$", self.c.admin.Save, admin.SaveRequest(name="x"))
        refuses(f"^{service}Load is not built yet$", self.c.admin.Load, admin.LoadRequest(name="x"))
        method = "/espalier.v1.Admin/Nothing"
        call = self.c.channel.unary_unary(method)
        refuses(f"^there is no method {method}$", call, b"", timeout=harness.TIMEOUT)

    def test_pulls(self):
        narrower = "^leaf net.w: dtype f64 expected, got f32: only f32 travels narrower yet$"
        self.refuses(narrower, self.c.pull, paths=["net.w"], dtype="DTYPE_F32")

    def test_declarations(self):
        def refuses(message, *leaves, **rest):
            self.refuses(message, self.c.declare, leaf("a.first", 1), *leaves, **rest)

        refuses("^leaf a.x: parameters of bf16 are not built yet$", leaf("a.x", 1, dtype="DTYPE_BF16"))
        refuses("^leaf a.x: parameters of f16 are not built yet$", leaf("a.x", 1, dtype="DTYPE_F16"))
        self.assertEqual(self.c.info().leaves, 2)

    def test_the_rest(self):
        self.refuses("^norms are not built yet$", self.c.describe, norms=True)
        tensors = {"net.w": f64(1, 2)}
        sparse = harness.push_messages(tensors)
        sparse[1].chunks[0].tensor.rows.append(1)
        self.refuses("^leaf net.w: row-sparse tensors are not built yet$", self.c.ps.Push, iter(sparse))


harness.main()
