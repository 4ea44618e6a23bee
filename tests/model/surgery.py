"""The naive model's transactions: each operation of Admin's Apply, on a copy of the model, with its lines of the diff (the
table above struct esp_change in server/tree/tree.h)."""

import pairing
import rules
import selecting
import timing
import undoing
from harness import admin
from model import Param, Refused, initial, is_within


def printed(flag):
    return str(bool(flag)).lower()


class Transaction:
    def __init__(self, model, stages, max_leaves=0):
        self.model = model.clone()
        self.epoch, self.commit_before = model.epoch, model.commit
        self.max_leaves = max_leaves
        self.stages = stages  # by operation: {leaf's id: array}
        self.changes = []
        self.matched = 0
        self.undoes = 0  # the epoch of a transaction that was taken back
        self.moved = {}  # by parameter: it, the name assigned to it, its former primary leaf: its group is to stay

    def note(self, leaf, field, before, after, because=""):
        path, number = (leaf, 0) if isinstance(leaf, str) else (leaf.path, leaf.id)
        self.changes.append(
            admin.Change(path=path, leaf_id=number, field=field, **{"from": before}, to=after, because=because)
        )

    def count(self, leaves):
        self.matched += leaves
        if self.max_leaves and self.matched > self.max_leaves:
            raise Refused("FAILED_PRECONDITION")

    def select(self, text):
        found = self.model.select(text)
        self.count(len(found))
        return found

    def pair(self, source, to):
        found = pairing.pair(self.model, source, to)
        self.count(len(found))
        return found

    def with_ties(self, leaves):
        """Every leaf of these leaves' parameters, in path order, with the selected leaf that it is tied to where it was
        not selected itself."""
        because = {}
        for leaf in leaves:
            for other in leaf.param.leaves:
                because.setdefault(other.path, leaf.path)
        for leaf in leaves:
            because[leaf.path] = ""
        return [(leaf, because[leaf.path]) for leaf in self.model.in_order() if leaf.path in because]

    def overwritten(self, leaves, field, how):
        for leaf, because in self.with_ties(leaves):
            self.note(leaf, field, "", how, because)

    def overwritten_by(self, pairs, how):
        """The value of each pair's second leaf comes from the first one; of several for one parameter the last counts."""
        origins = {other.param.id: leaf.path for leaf, other in pairs}
        for leaf, because in self.with_ties([other for _, other in pairs]):
            self.note(leaf, "value", "", f"{how} {origins[leaf.param.id]}", because)

    # ---- flags ----

    def freeze(self, **arguments):
        timing.freeze(self, **arguments)

    def thaw(self, **arguments):
        timing.thaw(self, **arguments)

    def cancel_timer(self, timer):
        timing.cancel(self, timer)

    def thaw_now(self, leaves, reset_state):
        if reset_state:
            self.reset_states([leaf for leaf in leaves if leaf.param.frozen])
        self.flag_frozen(leaves, False)

    def flag_frozen(self, leaves, frozen, timer=None):
        """Those that are so already lose the timer that they have, too."""
        timing.give(self, leaves, timer)
        return self.flag_only(leaves, frozen)

    def flag_only(self, leaves, frozen):
        changing = [leaf for leaf in leaves if leaf.param.frozen != frozen]
        for leaf, because in self.with_ties(changing):
            self.note(leaf, "frozen", printed(not frozen), printed(frozen), because)
        params = list({leaf.param.id: leaf.param for leaf in changing}.values())
        for param in params:
            param.frozen = frozen
        return params

    def detach(self, selection):
        self.flag_detached(self.select(selection), True)

    def attach(self, selection):
        self.flag_detached(self.select(selection), False)

    def flag_detached(self, leaves, detached):
        for leaf in leaves:
            if leaf.param.kind == "trained" and leaf.detached != detached:
                self.note(leaf, "detached", printed(not detached), printed(detached))
                leaf.detached = detached

    # ---- values and states ----

    def set(self, selection, values, reset_state=False):
        leaves = self.select(selection)
        if any(leaf.id not in values for leaf in leaves):
            raise Refused("FAILED_PRECONDITION")
        self.overwritten(leaves, "value", "set")
        for leaf in leaves:
            leaf.param.assign(leaf.unseen(values[leaf.id]))
        if reset_state:
            self.reset_states(leaves)

    def copy(self, source, to):
        pairs = self.pair(source, to)
        for leaf, other in pairs:
            a, b = leaf.param, other.param
            if (leaf.shape(), a.dtype, a.kind) != (other.shape(), b.dtype, b.kind):
                raise Refused("INVALID_ARGUMENT")
        pairs = [(leaf, other) for leaf, other in pairs
                 if (leaf.param, leaf.transposed) != (other.param, other.transposed)]
        self.overwritten_by(pairs, "copied from")
        for leaf, other in pairs:
            other.param.assign(other.unseen(leaf.seen(leaf.param.value)).copy())

    def reinit(self, selection, init):
        leaves = self.select(selection)
        kind, a, b, seed = init
        initial(init, "f64", 1)
        numbers = {"zeros": [], "constant": [a]}.get(kind, [a, b])
        text = kind + (f"({', '.join(f'{number:g}' for number in numbers)})" if numbers else "")
        text += f", seed {seed}" * (kind in ("uniform", "normal"))
        self.overwritten(leaves, "value", text)
        for param in {leaf.param.id: leaf.param for leaf in leaves}.values():
            param.assign(initial(init, param.dtype, param.value.size))

    def reset(self, selection):
        self.reset_states(self.select(selection))

    def reset_states(self, leaves):
        leaves = [leaf for leaf in leaves if leaf.param.kind == "trained"]
        self.overwritten(leaves, "state", "reset")
        for leaf in leaves:
            leaf.param.reset()

    # ---- bindings ----

    @staticmethod
    def binding(leaf):
        param = leaf.param
        return f"parameter {param.id} ({param.leaves[0].path})" + " transposed" * leaf.transposed

    def tie(self, leaf, to, view=0, value=0):
        pairs = self.pair(leaf, to)
        for one, other in pairs:
            self.check_tie(one, other, view)
        if value:
            self.overwritten_by([(one, other) for one, other in pairs if one.param is not other.param], "mean with")
        for one, other in pairs:
            self.bind(one, other, view, value)

    @staticmethod
    def check_tie(leaf, other, view):
        shape = other.shape()
        if view:
            if len(shape) != 2:
                raise Refused("INVALID_ARGUMENT")
            shape = shape[::-1]
        mine, theirs = leaf.param, other.param
        if leaf is other or (leaf.shape(), mine.dtype, mine.kind) != (shape, theirs.dtype, theirs.kind):
            raise Refused("INVALID_ARGUMENT")

    def bind(self, leaf, other, view, mean):
        old, new = leaf.param, other.param
        transposed = other.transposed != bool(view)
        if old is new and leaf.transposed == transposed:
            return
        before = self.binding(leaf)
        was_frozen, was_stepped = old.frozen, self.model.group_of(old)
        was_timer = old.timer
        seen = leaf.seen(old.value)
        if old is not new:
            self.leave(leaf)
            new.leaves.append(leaf)
        leaf.param, leaf.transposed = new, transposed
        self.note(leaf, "parameter", before, self.binding(leaf))
        if was_frozen != new.frozen:
            self.note(leaf, "frozen", printed(was_frozen), printed(new.frozen), other.path)
        if was_timer != new.timer:
            texts = [timing.text_of(self.model, number) for number in (was_timer, new.timer)]
            self.note(leaf, "timer", *texts, other.path)
        if new.kind == "trained" and was_stepped != self.model.group_of(new):
            self.note(leaf, "stepped_by", was_stepped, self.model.group_of(new), other.path)
        if mean and old is not new:
            half = new.value.dtype.type(0.5)
            new.assign(leaf.unseen(seen) * half + new.value * half)  # so that nothing overflows

    def leave(self, leaf):
        """A leaf leaves its parameter: if it was the primary one, the first of the others in path order follows."""
        param = leaf.param
        others = [one for one in param.leaves if one is not leaf]
        if param.leaves[0] is leaf and others:
            first = min(others, key=lambda one: one.parts)
            others = [first] + [one for one in others if one is not first]
            self.keep_group(param, self.model.assigned(leaf.path), leaf.path)
        param.leaves = others

    def untie(self, selection, reset_state=False):
        self.split_off(self.select(selection), reset_state)

    def split_off(self, leaves, reset_state=False):
        chosen = {leaf.path for leaf in leaves}
        keeping = set()  # primary leaves of parameters of which all leaves are selected
        for leaf in leaves:
            if all(one.path in chosen for one in leaf.param.leaves):
                keeping.add(leaf.param.leaves[0].path)
        shared = [leaf for leaf in leaves if len(leaf.param.leaves) > 1 and leaf.path not in keeping]
        before = [(self.binding(leaf), self.model.assigned(leaf.param.leaves[0].path)) for leaf in shared]
        primary = [leaf.param.leaves[0].path for leaf in shared]
        for leaf, (was, group), because in zip(shared, before, primary):
            old = leaf.param
            new = Param(self.model.param_id_next, leaf.shape(), old.dtype, old.kind, leaf.seen(old.value).copy())
            self.model.param_id_next += 1
            new.frozen, new.steps, new.timer = old.frozen, old.steps, old.timer
            new.states = {name: leaf.seen(state).copy() for name, state in old.states.items()}
            if reset_state:
                new.reset()
            self.leave(leaf)
            leaf.param, leaf.transposed = new, False
            new.leaves = [leaf]
            self.note(leaf, "parameter", was, self.binding(leaf))
            self.keep_group(new, group, because)

    def settle(self):
        """Groups of parameters that stay do not change: what a place would change is assigned."""
        for param, group, because in self.moved.values():
            if param.leaves and self.model.assigned(param.leaves[0].path) != group:
                self.assign(param.leaves[0].path, group, because)
        self.moved = {}
        timing.drop_unused(self.model)

    def keep_group(self, param, group, because):
        """Until settle(). Of several primary leaves that left it, the first one's counts."""
        self.moved.setdefault(param.id, (param, group, because))

    # ---- groups ----

    def assign(self, node, group, because=""):
        """None: no assignment any more."""
        before = self.model.assignments.get(node)
        if before != group:
            self.note(self.model.leaves.get(node, node), "group", before or "", group or "", because)
            self.model.assign(node, group)

    def regroup(self, selection, group):
        leaves = self.select(selection)
        stepped_by = group if group in self.model.groups else "default"
        for leaf, because in self.with_ties(leaves):
            if because and self.model.group_of(leaf.param) != stepped_by:
                self.note(leaf, "stepped_by", self.model.group_of(leaf.param), stepped_by, because)
        if selecting.is_path(selection):
            for node in [node for node in self.model.assignments if is_within(node, selection) and node != selection]:
                self.assign(node, None)
            self.assign(selection, group)
        for leaf in leaves:
            primary = leaf.param.leaves[0]
            if self.model.assigned(primary.path) != group:
                self.assign(primary.path, group)

    def steppers(self):
        return {leaf.path: self.model.group_of(leaf.param) for leaf in self.model.leaves.values()}

    def define_group(self, name, expression):
        try:
            new = rules.Optimizer(expression)
        except rules.BadExpression as error:
            raise Refused("INVALID_ARGUMENT") from error
        self.redefine(name, new)

    def delete_group(self, name):
        if name == "default":
            raise Refused("FAILED_PRECONDITION")
        if name not in self.model.groups:
            raise Refused("NOT_FOUND")
        self.redefine(name, None)

    def adjust(self, group, hyperparameters):
        if group not in self.model.groups:
            raise Refused("NOT_FOUND")
        try:
            new = self.model.groups[group].adjusted(hyperparameters)
        except rules.BadExpression as error:
            raise Refused("INVALID_ARGUMENT") from error
        self.redefine(group, new)

    def redefine(self, name, new):
        before = self.steppers()
        old = self.model.groups.get(name)
        if str(old or "") == str(new or ""):
            return
        self.note(name, "optimizer", str(old or ""), str(new or ""))
        self.model.groups = {**self.model.groups, name: new}
        if new is None:
            del self.model.groups[name]
        for leaf in self.model.in_order():
            now = self.model.group_of(leaf.param)
            if before[leaf.path] != now:
                self.note(leaf, "stepped_by", before[leaf.path], now)

    def name_selection(self, name, selection):
        before = self.model.selections.get(name, "")
        if not selection:
            if not before:
                raise Refused("NOT_FOUND")
            del self.model.selections[name]
        else:
            try:
                selecting.check(selection)
                selecting.check_circle(self.model, name, selection)
            except selecting.BadSelector as error:
                raise Refused("INVALID_ARGUMENT") from error
            self.model.selections[name] = selection
        if before != selection:
            self.note("@" + name, "selection", before, selection)

    # ---- places ----

    @staticmethod
    def described(leaf):
        shape = ", ".join(map(str, leaf.shape()))
        return f"{leaf.param.dtype} [{shape}]" + " buffer" * (leaf.param.kind == "buffer")

    def add(self, leaf):
        spec = leaf
        model = self.model
        self.count(1)
        there = model.leaves.get(spec["path"])
        if there:
            model.check_same(there, spec)
            raise Refused("FAILED_PRECONDITION")
        model.check_place(spec["path"])
        initial(spec["init"], spec["dtype"], 1)
        self.bear(spec)
        self.tie_born([spec])

    def bear(self, spec, value=None):
        """A new leaf."""
        is_free = bool(spec.get("alias_of"))  # until it is tied
        new = self.model.add_leaf({**spec, "frozen": spec["frozen"] and not is_free}, value)
        self.model.removed.discard(spec["path"])
        self.note(new, "leaf", "", self.described(new))
        if spec["group"]:
            self.assign(spec["path"], spec["group"])
        return new

    def tie_born(self, specs):
        """New leaves that are aliases, each after the one that it is an alias of. Born frozen is frozen, with all that
        it is tied to."""
        waiting = {spec["path"]: spec for spec in specs if spec.get("alias_of")}
        if any(spec["alias_of"] not in self.model.leaves for spec in waiting.values()):
            raise Refused("NOT_FOUND")
        while waiting:
            ready = [spec for spec in waiting.values() if spec["alias_of"] not in waiting]
            if not ready:
                raise Refused("INVALID_ARGUMENT")
            for spec in ready:
                leaf, other = self.model.leaves[spec["path"]], self.model.leaves[spec["alias_of"]]
                self.check_tie(leaf, other, spec["view"])
                self.bind(leaf, other, spec["view"], 0)
                del waiting[spec["path"]]
        self.settle()
        frozen = {spec["path"] for spec in specs if spec.get("alias_of") and spec["frozen"]}
        self.flag_frozen([leaf for leaf in self.model.in_order() if leaf.path in frozen], True)

    def remove(self, selection):
        self.take_out(self.select(selection))

    def take_out(self, leaves):
        gone = {leaf.path for leaf in leaves}
        staying = {leaf.path: any(one.path not in gone for one in leaf.param.leaves) for leaf in leaves}
        primary = {leaf.path: leaf.param.leaves[0].path for leaf in leaves}
        for leaf in leaves:
            self.note(leaf, "leaf", self.described(leaf), "")
            if leaf.param.frozen:
                self.note(leaf, "frozen", "true", "")
            if leaf.detached:
                self.note(leaf, "detached", "true", "")
            if leaf.param.timer:
                self.note(leaf, "timer", timing.text_of(self.model, leaf.param.timer), "")
            if leaf.tag:
                self.note(leaf, "tag", leaf.tag, "")
            if staying[leaf.path]:
                text = f"parameter {leaf.param.id} ({primary[leaf.path]})" + " transposed" * leaf.transposed
                self.note(leaf, "parameter", text, "")
        for param in {leaf.param.id: leaf.param for leaf in leaves}.values():
            first = param.leaves[0]
            others = [one for one in param.leaves if one.path not in gone]
            if others and first.path in gone:
                others.sort(key=lambda one: one.parts)
                self.keep_group(param, self.model.assigned(first.path), first.path)
            param.leaves = others
        for path in gone:
            leaf = self.model.leaves.pop(path)
            self.model.gone_bytes += leaf.param.value.nbytes
            self.model.gone_sizes[leaf.id] = leaf.param.value.size
        self.model.removed |= gone
        self.model.order = None

    def rename(self, source, to):
        self.count(len([leaf for leaf in self.model.in_order() if is_within(leaf.path, source)]))
        self.move(source, to)

    def move(self, source, to):
        model = self.model
        moving = [leaf for leaf in model.in_order() if is_within(leaf.path, source)]
        if not source or not to:
            raise Refused("INVALID_ARGUMENT")
        if not moving:
            raise Refused("NOT_FOUND")
        if source == to:
            return
        names = {leaf.path: to + leaf.path[len(source) :] for leaf in moving}
        paths = [names.get(path, path) for path in model.leaves]
        if any(is_within(a, b) for i, a in enumerate(paths) for j, b in enumerate(paths) if i != j):
            raise Refused("INVALID_ARGUMENT")
        before = {leaf.id: model.assigned(leaf.path) for leaf in model.leaves.values()}
        primaries = [param.leaves[0] for param in model.params()]
        node_group = model.assigned(source)
        stays = [path for path in model.leaves if path not in names]
        is_free = not any(is_within(path, to) for path in stays) and not any(
            is_within(node, to) and not is_within(node, source) for node in model.assignments
        )
        for leaf in moving:
            was = leaf.path
            del model.leaves[was]
            leaf.move(names[was])
        for leaf in moving:
            model.leaves[leaf.path] = leaf
            model.removed.discard(leaf.path)
        model.order = None
        model.nearest = {}
        for leaf in moving:
            was = source + leaf.path[len(to) :]
            self.note(leaf, "path", was, leaf.path)
        self.move_settings(source, to)
        alike = any(is_within(leaf.path, to) and before[leaf.id] == node_group for leaf in primaries)
        if is_free and alike and model.assigned(to) != node_group:
            self.assign(to, node_group, source)
        for leaf in sorted(primaries, key=lambda one: one.parts):
            if model.assigned(leaf.path) != before[leaf.id]:
                self.assign(leaf.path, before[leaf.id], source)

    def move_settings(self, source, to):
        model = self.model
        moving = {node: group for node, group in model.assignments.items() if node and is_within(node, source)}
        new = {to + node[len(source) :]: group for node, group in moving.items()}
        for node in {**moving, **new}:
            self.assign(node, new.get(node))
        tags = {node: tag for node, tag in model.tags.items() if node and is_within(node, source)}
        new = {to + node[len(source) :]: tag for node, tag in tags.items()}
        for node in {**tags, **new}:
            self.tag(node, new.get(node, ""))

    def tag(self, node, tag):
        """Of an inner node; "": none."""
        before = self.model.tags.pop(node, "")
        if before != tag:
            self.note(node, "tag", before, tag)
        if tag:
            self.model.tags[node] = tag

    # ---- back ----

    def undo(self, epoch):
        undoing.undo(self, epoch)

    # ---- the whole ----

    def commit(self):
        """One epoch, if anything changed."""
        timing.drop_unused(self.model)
        if self.changes:
            self.model.epoch += 1
            self.model.commit += 1
            self.model.regroup()

    def run(self, operations):
        for place, operation in enumerate(operations):
            ((kind, arguments),) = operation.items()
            arguments = dict(arguments)
            if kind == "set":
                arguments["values"] = self.stages[place]
            if "from" in arguments:
                arguments["source"] = arguments.pop("from")
            getattr(self, kind)(**arguments)
            if kind != "tie" or place + 1 == len(operations) or "tie" not in operations[place + 1]:
                self.settle()  # ties in a row are one step as to groups
        self.commit()


def fire(model):
    """The transaction of the timers that are due."""
    transaction = Transaction(model, {})
    for timer in sorted(model.due(), key=lambda timer: timer.id):
        leaves = [leaf for leaf in transaction.model.in_order() if leaf.param.timer == timer.id]
        if timer.frozen:
            end = timing.end_of(transaction, timer.until_commit, timer.for_ms, timer.selection)
            transaction.flag_frozen(leaves, True, end)
        else:
            transaction.thaw_now(leaves, timer.reset_state)
    before, timers = model.picture(), model.timers
    transaction.settle()
    transaction.commit()
    model.__dict__ = transaction.model.__dict__
    model.record(transaction.changes, "timer", "", before, timers)


def apply(model, operations, stages, *, if_epoch=0, dry_run=False, key="", max_leaves=0, reason=""):
    """ApplyResponse without notes; the model has changed, or not at all."""
    timing.check(operations)
    if key and key in model.keys:
        return model.keys[key]
    if if_epoch not in (0, model.epoch):
        raise Refused("ABORTED")
    if not operations:
        raise Refused("INVALID_ARGUMENT")
    before, timers = model.picture(), model.timers
    transaction = Transaction(model, stages, max_leaves)
    transaction.run(operations)
    changed = bool(transaction.changes)
    if not dry_run:
        model.__dict__ = transaction.model.__dict__
        model.record(transaction.changes, model.operator, reason, before, timers)
    reply = admin.ApplyResponse(
        epoch=model.epoch,
        commit=model.commit if changed and not dry_run else 0,
        lineage=model.lineage,
        changes=transaction.changes,
        matched=transaction.matched,
        dry_run=dry_run,
    )
    if reply.commit and len(operations) == 1:
        model.history[-1].undoes = transaction.undoes
    if key and not dry_run:
        model.keys[key] = reply
    return reply
