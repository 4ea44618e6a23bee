"""The naive model: what a server must have and answer, by design.md, docs/ and the comments of the contract headers.

Nothing here is clever: a transaction works on a whole copy, groups and selections are looked up anew each time, sums and
steps are numpy on whole tensors. What is refused raises Refused with the status code.
"""

import math
import struct

import numpy as np

import rules
import selecting
import xxh
from harness import admin, types, wire

DTYPES = {"f32": np.dtype("<f4"), "f64": np.dtype("<f8")}
KINDS = {"trained": types.KIND_TRAINED, "buffer": types.KIND_BUFFER}
WIRE_DTYPES = {"f32": types.DTYPE_F32, "f64": types.DTYPE_F64}
CACHE_LINE = 64  # each state tensor takes whole ones
LEAF_BYTES = 1 << 40


class Refused(Exception):
    """A refusal: .args[0] is the status code's name."""


def parts_of(path):
    return tuple(path.split(".")) if path else ()


def is_within(path, node):
    return node == "" or path == node or path.startswith(node + ".")


class Leaf:
    def __init__(self, number, path, param, tag="", detached=False, transposed=False):
        self.id = number
        self.move(path)
        self.param = param
        self.tag = tag
        self.detached = detached
        self.transposed = transposed

    def move(self, path):
        self.path = path
        self.parts = parts_of(path)

    def shape(self):
        return self.param.shape[::-1] if self.transposed else self.param.shape

    def seen(self, flat):
        """A tensor of the parameter's, flat, as the leaf sees it."""
        return np.ascontiguousarray(flat.reshape(self.param.shape).T).ravel() if self.transposed else flat

    def unseen(self, flat):
        """The other way round."""
        return np.ascontiguousarray(flat.reshape(self.shape()).T).ravel() if self.transposed else flat


class Param:
    """Its arrays are flat; they are replaced, never written, but by steps."""

    def __init__(self, number, shape, dtype, kind, value):
        self.id = number
        self.shape = tuple(shape)
        self.dtype = dtype
        self.kind = kind
        self.value = value
        self.states = {}
        self.steps = 0
        self.version = 1
        self.frozen = False
        self.timer = 0  # its id
        self.leaves = []  # in the order in which they were bound: the first is the primary one
        self.digest = None

    def assign(self, value):
        self.value = value
        self.version += 1
        self.digest = None

    def reset(self):
        self.states = {name: np.zeros_like(self.value) for name in self.states}
        self.steps = 0
        self.digest = None

    def carry(self, names):
        """What the new optimizer has too is kept. Where that is nothing the step count starts afresh as well."""
        if list(self.states) != names:
            if names and not set(names) & self.states.keys():
                self.steps = 0
            zeros = np.zeros_like(self.value)
            self.states = {name: self.states[name] if name in self.states else zeros.copy() for name in names}
            self.digest = None

    def get_digest(self):
        if self.digest is None:
            tensors = [self.value, *self.states.values()]
            self.digest = xxh.digest(b"".join(t.tobytes() for t in tensors) + struct.pack("<Q", self.steps))
        return self.digest


def initial(init, dtype, count):
    """First values, by "First values" of docs/optimizers.md."""
    kind, a, b, seed = init
    if kind in ("zeros", "follows"):
        return np.zeros(count, DTYPES[dtype])
    if not (math.isfinite(a) and math.isfinite(b)) or (kind == "uniform" and b < a) or (kind == "normal" and b < 0):
        raise Refused("INVALID_ARGUMENT")
    if kind == "constant":
        return np.full(count, a, DTYPES[dtype])
    with np.errstate(over="ignore"):
        golden = np.uint64(0x9E3779B97F4A7C15)

        def mix(z):
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            return z ^ (z >> np.uint64(31))

        def unit(k):
            base = mix(np.array([seed], np.uint64) + golden)
            return (mix(base + (k + np.uint64(1)) * golden) >> np.uint64(11)).astype(np.float64) * 2.0**-53

        i = np.arange(count, dtype=np.uint64)
        if kind == "uniform":
            out = (a + (b - a) * unit(i)).astype(DTYPES[dtype])
            return np.where((out >= b) & (b > a), np.nextafter(DTYPES[dtype].type(b), DTYPES[dtype].type(a)), out)
        two = np.uint64(2)
        # math's functions, one by one: numpy's own log and cos may differ from the C library's in the last bit.
        pairs = zip((1.0 - unit(two * i)).tolist(), unit(two * i + np.uint64(1)).tolist())
        values = [a + b * (math.sqrt(-2.0 * math.log(p)) * math.cos(6.283185307179586 * q)) for p, q in pairs]
        return np.array(values, np.float64).astype(DTYPES[dtype])


class Record:
    """A transaction in the history."""

    undoes = 0  # the epoch of the transaction that it took back, and did nothing else

    def __init__(self, epoch, commit, actor, reason, changes, before, timers):
        self.epoch = epoch
        self.commit = commit
        self.actor = actor
        self.reason = reason
        self.before = before
        self.timers = timers  # that waited before, by id
        self.changes = changes  # lines, of which the order is the server's once it has told it

    def told(self):
        """As History tells it, but for the time."""
        return admin.HistoryResponse.Transaction(
            epoch=self.epoch,
            commit=self.commit,
            actor=self.actor,
            reason=self.reason,
            changes=self.changes,
            changes_total=len(self.changes),
        )


class Model:
    def __init__(self, lineage, epoch, groups, assigns, nonfinite="reject"):
        self.lineage = lineage
        self.epoch = epoch
        self.commit = 0
        self.nonfinite = nonfinite
        self.groups = {name: rules.Optimizer(text) for name, text in groups.items()}
        self.assignments = {"": "default", **assigns}
        self.tags = {}
        self.selections = {}
        self.removed = set()
        self.leaves = {}  # by path
        self.leaf_id_next = 1
        self.param_id_next = 1
        self.gone_bytes = 0  # of leaves that were removed: pushes may still have them
        self.gone_sizes = {}  # elements of them, by id
        self.pushes = 0  # commits of them
        self.timers = {}  # that wait, by id
        self.timer_id_next = 1
        self.keys = {}  # idempotency key: the first answer
        self.operator = ""  # where operators call from
        self.history = []  # of Record, also shared by copies: only what has happened comes in
        self.order = None
        self.infos = {}  # LeafInfo, serialized, by path: what steps have not made stale
        self.nearest = {}  # what assigned() found, by path

    def clone(self):
        """A copy that shares arrays, which are never written but by steps."""
        new = object.__new__(Model)
        new.__dict__.update(self.__dict__)
        for name in ("groups", "assignments", "tags", "selections", "timers", "gone_sizes"):
            setattr(new, name, dict(getattr(self, name)))
        new.removed = set(self.removed)
        params = {}
        for param in self.params():
            copy = object.__new__(Param)
            copy.__dict__.update(param.__dict__)
            params[param.id] = copy
        new.leaves = {}
        new.order = None
        new.infos = {}
        new.nearest = {}
        for path, leaf in self.leaves.items():
            copy = object.__new__(Leaf)
            copy.__dict__.update(leaf.__dict__)
            copy.param = params[leaf.param.id]
            new.leaves[path] = copy
        for param in params.values():
            param.leaves = [new.leaves[leaf.path] for leaf in param.leaves]
        return new

    # ---- looking ----

    def in_order(self):
        if self.order is None:
            self.order = sorted(self.leaves.values(), key=lambda leaf: leaf.parts)
        return self.order

    def params(self):
        return {id(leaf.param): leaf.param for leaf in self.leaves.values()}.values()

    def by_id(self, number):
        return next((leaf for leaf in self.leaves.values() if leaf.id == number), None)

    def assigned(self, path):
        """The name that the nearest assignment gives."""
        if path not in self.nearest:
            parts = parts_of(path)
            nodes = (".".join(parts[:i]) for i in range(len(parts), -1, -1))
            self.nearest[path] = next(self.assignments[node] for node in nodes if node in self.assignments)
        return self.nearest[path]

    def assign(self, node, group):
        """None: no assignment any more."""
        self.assignments.pop(node, None)
        if group is not None:
            self.assignments[node] = group
        self.nearest = {}

    def group_of(self, param):
        group = self.assigned(param.leaves[0].path)
        return group if group in self.groups else "default"

    def groups_named(self, param):
        """The group that steps it, and the name assigned to it."""
        return {self.group_of(param), self.assigned(param.leaves[0].path)}

    def regroup(self):
        """After whatever may have moved parameters between groups or changed those: each has its optimizer's states."""
        for param in self.params():
            if param.kind == "trained":
                param.carry(self.groups[self.group_of(param)].state_names)

    def select(self, text):
        if text == "":
            raise Refused("INVALID_ARGUMENT")
        try:
            found = selecting.select(self, text)
        except selecting.BadSelector as error:
            raise Refused("INVALID_ARGUMENT") from error
        if not found:
            raise Refused("NOT_FOUND")
        return found

    def record(self, changes, actor, reason, before=None, timers=()):
        """Of a transaction that has happened, if it changed anything. before: the picture() of before it; timers: those
        that waited then."""
        if changes:
            self.history.append(Record(self.epoch, self.commit, actor, reason, changes, before, dict(timers)))

    def due(self):
        """Timers whose time has come: they are to be the next transaction, before any push."""
        return [
            timer
            for timer in self.timers.values()
            if (timer.due == "commit" and timer.at <= self.commit + 1)
            or (timer.due == "pushes" and timer.at <= self.pushes)
        ]

    def picture(self):
        """What a transaction can change and an undo can bring back, but for timers, whose time may have been."""
        leaves = {}
        for leaf in self.leaves.values():
            param = leaf.param
            leaves[leaf.id] = {
                "path": leaf.path,
                "tag": leaf.tag,
                "flags": (leaf.detached, param.frozen),
                "group": self.assigned(param.leaves[0].path),
                "primary": param.leaves[0].id,
                "bound": (param.id, leaf.transposed),
            }
        groups = {name: str(optimizer) for name, optimizer in self.groups.items()}
        named = {"assignments": dict(self.assignments), "tags": dict(self.tags), "selections": dict(self.selections)}
        return {"leaves": leaves, "groups": groups, **named}

    # ---- new leaves ----

    def add_leaf(self, spec, value=None):
        """A new leaf of its own parameter. `value` is None where an initialiser makes it."""
        count = math.prod(spec["shape"])
        if value is None:
            value = initial(spec["init"], spec["dtype"], count)
        param = Param(self.param_id_next, spec["shape"], spec["dtype"], spec["kind"], value)
        param.version += spec["init"][0] != "zeros"  # it was zeros, and then it was written
        leaf = Leaf(self.leaf_id_next, spec["path"], param, spec["tag"])
        param.frozen = spec["frozen"]
        leaf.detached = spec["detached"] and spec["kind"] == "trained"
        param.leaves.append(leaf)
        self.leaves[leaf.path] = leaf
        self.order = None
        self.leaf_id_next += 1
        self.param_id_next += 1
        return leaf

    @staticmethod
    def check_same(leaf, spec):
        there = (leaf.shape(), leaf.param.dtype, leaf.param.kind)
        if there != (tuple(spec["shape"]), spec["dtype"], spec["kind"]):
            raise Refused("INVALID_ARGUMENT")

    def check_place(self, path):
        """Neither below a leaf nor above one."""
        parts = parts_of(path)
        if any(".".join(parts[:i]) in self.leaves for i in range(1, len(parts))):
            raise Refused("INVALID_ARGUMENT")
        if any(is_within(other, path) for other in self.leaves):
            raise Refused("INVALID_ARGUMENT")

    # ---- pushes ----

    def push(self, grads, sequence=0, require_epoch=0):
        """grads: [(leaf's path or id, array)]. The reply."""
        counts = {"applied": 0, "frozen": 0, "detached": 0, "removed": 0}
        if len(grads) >= self.leaf_id_next or sum(a.nbytes for _, a in grads) > self.leaf_bytes() + self.gone_bytes:
            raise Refused("INVALID_ARGUMENT")
        named = set()
        steps = {}
        finite = True
        for name, array in grads:
            leaf = self.leaves.get(name) if isinstance(name, str) else self.by_id(name)
            if leaf is None and not isinstance(name, str) and 0 < name < self.leaf_id_next:
                if array.size != self.gone_sizes[name]:
                    raise Refused("INVALID_ARGUMENT")
                counts["removed"] += 1
                continue
            if leaf is None:
                raise Refused("NOT_FOUND")
            if leaf.param.kind == "buffer" or array.size != leaf.param.value.size:
                raise Refused("INVALID_ARGUMENT")
            named.add(leaf.path)
            if leaf.param.frozen:
                counts["frozen"] += 1
            elif leaf.detached:
                counts["detached"] += 1
            else:
                finite = finite and bool(np.isfinite(array).all())
                steps.setdefault(leaf.param.id, []).append((leaf, array))
        if require_epoch not in (0, self.epoch):
            raise Refused("ABORTED")
        if not finite and self.nonfinite == "reject":
            raise Refused("INVALID_ARGUMENT")
        self.commit += 1
        self.pushes += 1
        if finite:
            counts["applied"] += sum(map(len, steps.values()))
            self.step_all(steps.values())
        absent = sum(leaf.param.kind == "trained" and leaf.path not in named for leaf in self.leaves.values())
        return wire.PushReply(
            sequence=sequence,
            commit=self.commit,
            epoch=self.epoch,
            lineage=self.lineage,
            absent=absent,
            skipped=not finite,
            **counts,
        )

    def leaf_bytes(self):
        return sum(leaf.param.value.nbytes for leaf in self.leaves.values())

    def step_all(self, steps):
        """One step of each parameter on the sum, in path order, of what came through its leaves."""
        sums = []
        for arrivals in steps:
            arrivals.sort(key=lambda arrival: arrival[0].parts)
            param = arrivals[0][0].param
            sums.append((param, rules.summed([leaf.unseen(array) for leaf, array in arrivals])))
        norms = self.norms(sums)
        for param, gradient in sums:
            optimizer = self.groups[self.group_of(param)]
            param.steps += 1
            optimizer.step(param.value, list(param.states.values()), gradient, param.steps, norms[param.id])
            param.version += 1
            param.digest = None
            for leaf in param.leaves:
                self.infos.pop(leaf.path, None)

    def norms(self, sums):
        """By parameter: the sums of squares that its clipping rule may want."""
        if not any(optimizer.norms() for optimizer in self.groups.values()):
            return {param.id: None for param, _ in sums}
        own, groups, every = {}, {}, 0.0
        for param, gradient in sorted(sums, key=lambda one: one[0].leaves[0].parts):
            name = self.group_of(param)
            own[param.id] = 0.0
            groups.setdefault(name, 0.0)
            for square in rules.squares(gradient):
                own[param.id] += square
            groups[name] += own[param.id]
            every += own[param.id]
        return {
            param.id: {"param": own[param.id], "group": groups[self.group_of(param)], "global": every}
            for param, _ in sums
        }

    # ---- reads ----

    def described(self):
        """DescribeResponse of everything, with digests, serialized."""
        leaves = self.in_order()
        head = admin.DescribeResponse(
            epoch=self.epoch, commit=self.commit, lineage=self.lineage, leaf_count=len(leaves)
        )
        members = dict.fromkeys(self.groups, 0)
        for param in self.params():
            members[self.group_of(param)] += 1
        tail = admin.DescribeResponse(
            groups=[
                types.GroupInfo(name=name, expression=str(self.groups[name]), parameters=members[name])
                for name in sorted(self.groups)
            ],
            digest=xxh.digest(b"".join(leaf.path.encode() + b"\0" + leaf.param.get_digest() for leaf in leaves)),
        )
        infos = []
        for leaf in leaves:
            if leaf.path not in self.infos:
                self.infos[leaf.path] = admin.DescribeResponse(leaves=[self.info(leaf)]).SerializeToString()
            infos.append(self.infos[leaf.path])
        return b"".join([head.SerializeToString(), *infos, tail.SerializeToString()])

    def info(self, leaf):
        param = leaf.param
        assigned = self.assigned(param.leaves[0].path)
        bytes_len = param.value.nbytes
        return types.LeafInfo(
            id=leaf.id,
            path=leaf.path,
            shape=leaf.shape(),
            dtype=WIRE_DTYPES[param.dtype],
            kind=KINDS[param.kind],
            view=int(leaf.transposed),
            group=self.group_of(param),
            group_assigned="" if assigned in self.groups else assigned,
            frozen=param.frozen,
            detached=leaf.detached,
            tied_to="" if param.leaves[0] is leaf else param.leaves[0].path,
            tag=leaf.tag,
            parameter=param.id,
            steps=param.steps,
            version=param.version,
            bytes=bytes_len,
            state_bytes=len(param.states) * -(-bytes_len // CACHE_LINE) * CACHE_LINE,
            digest=param.get_digest(),
        )

    def pulled(self, leaves, have=()):
        """What a pull of these leaves gives: {leaf id: TensorHeader, bytes}, and how many are unchanged. have: {leaf
        id: (parameter, version, view)}."""
        sent = {}
        for leaf in leaves:
            param = leaf.param
            key = (param.id, param.version, int(leaf.transposed))
            if have and have.get(leaf.id) == key:
                continue
            tensor = types.TensorHeader(
                dtype=WIRE_DTYPES[param.dtype],
                shape=leaf.shape(),
                bytes=param.value.nbytes,
                parameter=key[0],
                version=key[1],
                view=key[2],
            )
            sent[leaf.id] = (tensor, leaf.seen(param.value).tobytes())
        return sent
