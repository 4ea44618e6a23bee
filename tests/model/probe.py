"""What the server has built: an operation that it answers UNIMPLEMENTED to is left out, and said to be."""

import subprocess

import grpc

import harness

PROBES = {
    "freeze": {"selection": "a.x"},
    "thaw": {"selection": "a.x"},
    "set": {"selection": "a.x", "stage": 1},
    "detach": {"selection": "a.x"},
    "attach": {"selection": "a.x"},
    "tie": {"leaf": "b.z", "to": "a.x"},
    "untie": {"selection": "a.x"},
    "regroup": {"selection": "a.x", "group": "default"},
    "adjust": {"group": "default", "hyperparameters": {"lr": "0.5"}},
    "copy": {"from": "a.x", "to": "b.z"},
    "rename": {"from": "a.x", "to": "a.w"},
    "add": {"leaf": harness.leaf("c", 1)},
    "remove": {"selection": "a.x"},
    "reinit": {"selection": "a.x", "init": {"zeros": True}},
    "reset": {"selection": "a.x"},
    "define_group": {"name": "g", "expression": "sgd"},
    "delete_group": {"name": "g"},
    "name_selection": {"name": "s", "selection": "a.x"},
    "undo": {"epoch": 0},
    "cancel_timer": {"timer": 1},
}
SELECTOR = "name:x & rank:2 | tag:T > y | group:nosuch | (kind:buffer & !frozen)"
BORN_TIED = harness.leaf("c", 2, 3, alias_of="a.x")
BORN_DETACHED = harness.leaf("d", detached=True)
NODE_TAG = harness.types.NodeSpec(path="e", tag="T")
TIMED = {"selection": "a.x", "until_commit": 1000}
CLIPS = "clip_global_norm(1) | sgd"


class Available:
    def __init__(self):
        self.kinds = []
        self.missing = []
        self.isas = []
        self.selectors = self.born_tied = self.born_detached = self.node_tags = self.clips = self.timers = False

    def show(self):
        print(f"operations: {', '.join(self.kinds)}")
        parts = {
            "selectors": self.selectors,
            "leaves that are born tied": self.born_tied,
            "leaves that are born detached": self.born_detached,
            "tags of inner nodes": self.node_tags,
            "clipping by norm": self.clips,
            "timers": self.timers,
        }
        missing = self.missing + [name for name, is_there in parts.items() if not is_there]
        if missing:
            print(f"NOT BUILT, left out: {', '.join(missing)}", flush=True)


def look():
    found = Available()
    server = harness.Server("--log-level=error")
    try:
        with harness.Client(server.address) as client:
            client.declare(harness.leaf("a.x", 2, 3), harness.leaf("a.y", 3, 2), harness.leaf("b.z", 2, 3))
            for kind, arguments in PROBES.items():
                (found.kinds if has(client, kind, arguments) else found.missing).append(kind)
            found.selectors = has(client, "freeze", {"selection": SELECTOR})
            found.born_tied = is_built(lambda: client.declare(BORN_TIED))
            found.born_detached = is_built(lambda: client.declare(BORN_DETACHED))
            found.node_tags = is_built(lambda: client.declare(nodes=[NODE_TAG]))
            found.timers = "cancel_timer" in found.kinds and has(client, "freeze", TIMED) and lists_timers(client)
            found.clips = takes_group(CLIPS)
        server.stop()
    finally:
        server.close()
    for isa in ("sse2", "avx2", "avx512"):
        done = subprocess.run([harness.ESPALIERD, f"--isa={isa}", "--listen=bad"], capture_output=True, text=True)
        if isa not in done.stderr:
            found.isas.append(isa)
    return found


def has(client, kind, arguments):
    return is_built(lambda: client.apply({kind: arguments}, dry_run=True))


def lists_timers(client):
    return is_built(lambda: list(client.admin.Timers(harness.admin.TimersRequest(), timeout=harness.TIMEOUT)))


def is_built(call):
    """Any answer but UNIMPLEMENTED."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code() != grpc.StatusCode.UNIMPLEMENTED
    return True


def takes_group(expression):
    """Whether a server starts with such a group."""
    try:
        server = harness.Server(f"--group=default={expression}", "--log-level=error")
    except AssertionError:
        return False
    server.stop()
    return True
