"""What operators and their tools ask: gRPC's standard health and reflection services, by the Python packages that
everybody uses for them, and the list of workers.

    services_test.py BUILD_DIR
"""

import signal

import grpc

import harness
from harness import Feed, admin, eventually, f64, leaf, types, wire
import packages  # finds those of grpc_* below

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import MessageFactory
from grpc_health.v1 import health_pb2 as health
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2 as reflection
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
SERVING, NOT_SERVING, SERVICE_UNKNOWN = (
    health.HealthCheckResponse.ServingStatus.Value(name) for name in ("SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
)
SERVICES = {
    "espalier.v1.ParameterServer",
    "espalier.v1.Admin",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
}


class Health(harness.TestCase):
    def start(self, *flags):
        server = self.server(*flags)
        client = self.client(server.address)
        return server, client, health_pb2_grpc.HealthStub(client.channel)

    def test_check(self):
        _, client, stub = self.start()
        for service in {"", *SERVICES}:
            reply = stub.Check(health.HealthCheckRequest(service=service), timeout=harness.TIMEOUT)
            self.assertEqual(reply.status, SERVING, service)
        for service in ("espalier.v1", "espalier.v1.Adm", "espalier.v1.Admin/", "Admin", "x" * 100000):
            self.assert_fails(NOT_FOUND, "no such service", stub.Check, health.HealthCheckRequest(service=service))
        bad = client.channel.unary_unary("/grpc.health.v1.Health/Check")
        self.assert_fails(INVALID_ARGUMENT, "field service", bad, b"\x0a\x02\xff\xff", timeout=harness.TIMEOUT)
        missing = client.channel.unary_unary("/grpc.health.v1.Health/List")
        self.assert_fails(grpc.StatusCode.UNIMPLEMENTED, "there is no method", missing, b"", timeout=harness.TIMEOUT)

    def test_watch_tells_of_the_end_before_it_ends(self):
        server, _, stub = self.start()
        watches = [
            stub.Watch(health.HealthCheckRequest(service=service), timeout=harness.TIMEOUT)
            for service in ("", "espalier.v1.Admin", "nobody")
        ]
        first = [next(watch).status for watch in watches]
        self.assertEqual(first, [SERVING, SERVING, SERVICE_UNKNOWN])
        server.process.send_signal(signal.SIGTERM)
        self.assertEqual([next(watch).status for watch in watches[:2]], [NOT_SERVING, NOT_SERVING])
        for watch in watches:
            self.assert_fails(UNAVAILABLE, "^the server is shutting down$", next, watch)
        self.assertEqual(server.wait(), 0)


class UnderV1:
    """A channel on which the package, which knows v1alpha only, speaks v1: the messages are the same."""

    def __init__(self, channel):
        self.channel = channel

    def stream_stream(self, method, *arguments, **keywords):
        return self.channel.stream_stream(method.replace(".v1alpha.", ".v1."), *arguments, **keywords)


def shape_of(file):
    """What makes two files speak alike: the numbers and types of fields, the values of enums, the methods."""
    messages, found = list(file.message_types_by_name.values()), {}
    for message in messages:
        messages += message.nested_types
        found[message.full_name] = {f.name: (f.number, f.type, f.label) for f in message.fields}
        found.update({e.full_name: {v.name: v.number for v in e.values} for e in message.enum_types})
    for service in file.services_by_name.values():
        found[service.full_name] = {m.name: (m.input_type.full_name, m.output_type.full_name) for m in service.methods}
    return found


class Reflection(harness.TestCase):
    def setUp(self):
        self.started = self.server()
        self.c = self.client(self.started.address)

    def databases(self):
        for channel in (self.c.channel, UnderV1(self.c.channel)):
            yield ProtoReflectionDescriptorDatabase(channel)

    def ask(self, *requests, version="v1alpha"):
        """The answers to one stream of requests."""
        call = self.c.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection.ServerReflectionResponse.FromString,
        )
        requests = [reflection.ServerReflectionRequest(**fields) for fields in requests]
        return list(call(iter(requests), timeout=harness.TIMEOUT))

    def test_services(self):
        for database in self.databases():
            services = list(database.get_services())
            self.assertEqual((set(services), len(services)), (SERVICES, len(SERVICES)))

    def test_files_are_what_protoc_makes_of_them(self):
        for database in self.databases():
            for module in (types, wire, admin):
                expected = type(database.FindFileByName(module.DESCRIPTOR.name))()
                module.DESCRIPTOR.CopyToProto(expected)
                got = database.FindFileByName(module.DESCRIPTOR.name)
                self.assertEqual(self.without_json_names(got), self.without_json_names(expected))

    def without_json_names(self, file):
        """Which protoc adds, and Python's descriptors don't keep."""
        pending = list(file.message_type)
        for message in pending:
            pending += message.nested_type
            for field in message.field:
                field.ClearField("json_name")
        return file

    def test_the_standard_services_are_the_standard_ones(self):
        pool = DescriptorPool(next(self.databases()))
        file = pool.FindFileByName("grpc/health/v1/health.proto")
        self.assertEqual(shape_of(file), shape_of(health.DESCRIPTOR))
        file = pool.FindFileByName("grpc/reflection/v1alpha/reflection.proto")
        self.assertEqual(shape_of(file), shape_of(reflection.DESCRIPTOR))
        v1 = shape_of(pool.FindFileByName("grpc/reflection/v1/reflection.proto"))
        self.assertEqual(eval(repr(v1).replace(".v1.", ".v1alpha.")), shape_of(reflection.DESCRIPTOR))

    def test_a_tool_that_knows_nothing_calls_a_method(self):
        for database in self.databases():
            pool = DescriptorPool(database)
            method = pool.FindServiceByName("espalier.v1.Admin").FindMethodByName("ServerInfo")
            factory = MessageFactory(pool)
            call = self.c.channel.unary_unary(
                "/espalier.v1.Admin/ServerInfo",
                request_serializer=factory.GetPrototype(method.input_type).SerializeToString,
                response_deserializer=factory.GetPrototype(method.output_type).FromString,
            )
            reply = call(factory.GetPrototype(method.input_type)(), timeout=harness.TIMEOUT)
            self.assertEqual(reply.lineage, self.c.info().lineage)

    def test_symbols(self):
        found = {
            "espalier.v1.Admin": "espalier/v1/admin.proto",
            "espalier.v1.Admin.Apply": "espalier/v1/admin.proto",
            "espalier.v1.Operation.Tie.Value": "espalier/v1/admin.proto",
            "espalier.v1.Operation.Tie.MEAN": "espalier/v1/admin.proto",
            "espalier.v1.Operation.operation": "espalier/v1/admin.proto",
            "espalier.v1.PushHeader.session": "espalier/v1/parameter_server.proto",
            "espalier.v1.ParameterServer.Watch": "espalier/v1/parameter_server.proto",
            "espalier.v1.DType": "espalier/v1/types.proto",
            "espalier.v1.DTYPE_F32": "espalier/v1/types.proto",
            "grpc.health.v1.HealthCheckResponse.ServingStatus": "grpc/health/v1/health.proto",
        }
        missing = ["", ".", "espalier", "espalier.v1", "espalier.v1.", "espalier.v1.Adm", "espalier.v1.Admin.", "Admin"]
        missing += ["espalier.v1.Admin.Apply.x", "espalier.v1.DType.DTYPE_F32", "espalier.v1.Tie", "x" * 8000]
        answers = self.ask(*({"file_containing_symbol": symbol, "host": "h"} for symbol in [*found, *missing]))
        self.assertEqual(len(answers), len(found) + len(missing))
        file_type = type(next(self.databases()).FindFileByName("espalier/v1/types.proto"))
        for answer, (symbol, name) in zip(answers, found.items()):
            self.assertEqual((answer.original_request.file_containing_symbol, answer.valid_host), (symbol, "h"))
            files = [file_type.FromString(one) for one in answer.file_descriptor_response.file_descriptor_proto]
            # What it imports is there as well.
            self.assertEqual([file.name for file in files], [name, *files[0].dependency], symbol)
        for answer in answers[len(found) :]:
            self.assertEqual(answer.error_response.error_code, NOT_FOUND.value[0], answer.original_request)

    def test_what_there_is_not(self):
        extension = {"containing_type": "espalier.v1.DType", "extension_number": 1}
        for version in ("v1", "v1alpha"):
            answers = self.ask(
                {"file_by_filename": "descriptor.proto"},
                {"file_containing_extension": extension},
                {"all_extension_numbers_of_type": "espalier.v1.Nothing"},
                {"all_extension_numbers_of_type": "espalier.v1.Chunk.leaf_id"},
                {"all_extension_numbers_of_type": "espalier.v1.Chunk"},
                {},
                version=version,
            )
            codes = [answer.error_response.error_code for answer in answers]
            self.assertEqual(codes, [5, 5, 5, 5, 0, 3])
            self.assertRegex(answers[1].error_response.error_message, "extension of espalier.v1.DType")
            known = answers[4].all_extension_numbers_response
            self.assertEqual((known.base_type_name, len(known.extension_number)), ("espalier.v1.Chunk", 0))
            self.assertTrue(answers[4].HasField("all_extension_numbers_response"))

    def test_a_request_that_is_too_long_ends_the_stream(self):
        text = self.assert_fails(INVALID_ARGUMENT, "8192", self.ask, {"list_services": "x" * 8192})
        self.assertIn("are allowed", text)

    def test_an_idle_stream_is_ended_at_the_shutdown(self):
        feed = Feed(reflection.ServerReflectionRequest(list_services="").SerializeToString())
        call = self.c.channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        answers = call(feed, timeout=harness.TIMEOUT)
        next(answers)
        self.started.process.send_signal(signal.SIGTERM)
        self.assert_fails(UNAVAILABLE, "shutting down", next, answers)
        feed.end()
        self.assertEqual(self.started.wait(), 0)


class Workers(harness.TestCase):
    def workers(self, client):
        """By name."""
        pages = list(client.admin.Workers(admin.WorkersRequest(), timeout=harness.TIMEOUT))
        self.assertLess(max(page.ByteSize() for page in pages), 1 << 20)
        workers = [worker for page in pages for worker in page.workers]
        self.assertEqual(len({worker.session for worker in workers}), len(workers))
        return {worker.name: worker for worker in workers}

    def test_what_is_told(self):
        server = self.server("--group=default=sgd(lr=1)")
        operator, ann, bob = (self.client(server.address) for _ in range(3))
        self.assertEqual(self.workers(operator), {})
        operator.declare(leaf("a", 1000))
        ann.join("ann")
        bob.join("bob")
        workers = self.workers(operator)
        self.assertEqual(set(workers), {"ann", "bob"})
        self.assertEqual((workers["ann"].session, workers["bob"].session), (ann.session, bob.session))
        for worker in workers.values():
            self.assertRegex(worker.peer, r"^127\.0\.0\.1:\d+$")
            self.assertTrue(worker.live)
            self.assertEqual((worker.last_sequence, worker.in_flight, worker.pushes, worker.staleness), (0, 0, 0, 0))
        self.assertNotEqual(workers["ann"].peer, workers["bob"].peer)
        gradient = {"a": f64(*[1.0] * 1000)}
        for _ in range(3):
            ann.push(gradient)
        workers = self.workers(operator)
        self.assertEqual((workers["ann"].last_sequence, workers["ann"].pushes, workers["ann"].staleness), (3, 3, 0))
        self.assertEqual((workers["bob"].last_sequence, workers["bob"].pushes, workers["bob"].staleness), (0, 0, 3))
        self.half_a_push(operator, bob, gradient)
        bob.ps.Leave(wire.LeaveRequest(session=bob.session), timeout=harness.TIMEOUT)
        self.assertEqual(set(self.workers(operator)), {"ann"})

    def half_a_push(self, operator, bob, gradient):
        messages = harness.push_messages(gradient, 1000, **bob.next_push())
        feed = Feed(*messages[:4])
        push = bob.ps.Push.future(feed, timeout=harness.TIMEOUT)
        eventually(lambda: self.workers(operator)["bob"].in_flight == 1, "the push has begun")
        self.assertEqual(self.workers(operator)["bob"].pushes, 0)
        feed.put(*messages[4:])
        feed.end()
        push.result()
        bob_is = self.workers(operator)["bob"]
        self.assertEqual((bob_is.in_flight, bob_is.pushes, bob_is.staleness, bob_is.last_sequence), (0, 1, 0, 1))

    def test_a_lease_that_ran_out(self):
        server = self.server("--lease=200ms")
        client = self.client(server.address)
        client.join("idle")
        eventually(lambda: not self.workers(client)["idle"].live, "the lease has run out")
        self.assertGreaterEqual(self.workers(client)["idle"].last_seen_ms, 200)
        client.ps.Heartbeat(wire.HeartbeatRequest(session=client.session), timeout=harness.TIMEOUT)
        eventually(lambda: not self.workers(client)["idle"].live, "it has run out again")

    def test_many(self):
        """More than a page holds."""
        server = self.server()
        client = self.client(server.address)
        names = [f"{i:0255}" for i in range(4200)]
        joins = [client.ps.Join.future(wire.JoinRequest(worker=name), timeout=4 * harness.TIMEOUT) for name in names]
        sessions = {join.result().session for join in joins}
        pages = list(client.admin.Workers(admin.WorkersRequest(), timeout=harness.TIMEOUT))
        self.assertGreater(len(pages), 1)
        workers = self.workers(client)
        self.assertTrue(set(workers) == set(names))
        self.assertEqual({worker.session for worker in workers.values()}, sessions)


class Explain(harness.TestCase):
    def test_pages(self):
        client = self.client(self.server().address)
        paths = [f"{'long' * 50}.{i:05}" for i in range(3000)]
        client.declare(*(leaf(path, 1) for path in paths))
        client.freeze("**")
        pages = list(client.admin.Explain(admin.ExplainRequest(), timeout=harness.TIMEOUT))
        self.assertGreater(len(pages), 1)
        self.assertLessEqual(max(page.ByteSize() for page in pages), 1 << 20)
        leaves = [one for page in pages for one in page.leaves]
        self.assertEqual([one.path for one in leaves], paths)
        self.assertEqual({(page.epoch, page.commit) for page in pages}, {(3, 2)})
        for one in leaves:
            facts = {fact.what: (fact.value, fact.epoch) for fact in one.facts}
            self.assertEqual(facts["frozen"], ("yes", 3))
        self.assert_fails(NOT_FOUND, "nearest", client.admin.Explain, admin.ExplainRequest(selection="lon"))
        self.assert_fails(INVALID_ARGUMENT, "column", client.admin.Explain, admin.ExplainRequest(selection="a &"))


harness.main()
