"""The naive model's undo, by design.md (sections 4 and 11), docs/espctl.md and the headers of server/engine/undo*.c: the
lines of the transaction's diff, read backwards, are taken back on the tree of now, unless a later transaction touched the
same. Places come before bindings, those before groups, flags and names last."""

import re

import timing
from model import Refused, is_within


def was(line):
    return getattr(line, "from")


def thing(line):
    """What a line is of: a leaf, whatever of it, or one setting of a node, a group or a name."""
    return line.leaf_id or (line.path, line.field)


def settled(records):
    """The epochs of those of these that were undone again, and of their undos: together they changed nothing."""
    epochs, found = {one.epoch for one in records}, set()
    for one in reversed(records):
        if one.undoes in epochs and one.epoch not in found:
            found |= {one.epoch, one.undoes}
    return found


def undo(transaction, epoch):
    history = transaction.model.history
    place = len(history) - 1 if epoch == 0 else next((i for i, one in enumerate(history) if one.epoch == epoch), -1)
    if place < 0:
        raise Refused("NOT_FOUND")
    if epoch == 0 and history[place].reason == "declaration":
        raise Refused("FAILED_PRECONDITION")
    lines = history[place].changes
    transaction.count(len({line.leaf_id for line in lines if line.leaf_id}))
    transaction.undoes = history[place].epoch
    touched = {thing(line) for line in lines}
    later = history[place + 1 :]
    passed = settled(later)
    since = [line for one in later if one.epoch not in passed for line in one.changes]
    if any(thing(line) in touched for line in since):
        raise Refused("FAILED_PRECONDITION")
    is_last = not later and not transaction.changes
    Undo(transaction, lines, [line.path for line in since if line.field == "group"], history[place].timers).run(is_last)


def loses(lines):
    """Whether an undo of these lines has to say that something is not brought back."""
    return any(line.field in ("value", "state") or (line.field == "leaf" and not line.to) for line in lines)


def brings_all_back(before, model):
    """Whether an undo at once has all that it needs to make the tree what it was before: no leaf, no parameter went."""
    params = {param.id for param in model.params()}
    leaves = {leaf.id for leaf in model.leaves.values()}
    return all(number in leaves and leaf["bound"][0] in params for number, leaf in before["leaves"].items())


class Undo:
    """Of a transaction's lines; `since`: nodes that were assigned groups later."""

    def __init__(self, transaction, lines, since, timers):
        self.transaction, self.model = transaction, transaction.model
        self.lines, self.since, self.timers = lines, since, timers
        self.began = len(transaction.changes)
        self.moves = []  # (path, the former one, the first of their lines), from the last to the first
        self.bound = {}  # by leaf's id: (the parameter's that it was bound to first, the place of the line)
        self.primary = {}  # by parameter's id: the path that its primary leaf had first, the place of the line
        for place, line in enumerate(lines):
            if line.field == "parameter" and was(line):
                number, path = re.match(r"parameter (\d+) \((.*)\)", was(line)).groups()
                self.bound.setdefault(line.leaf_id, (int(number), place))
                self.primary.setdefault(int(number), (path, place))

    def run(self, is_last):
        self.take_back_places()
        nodes = [self.moved_back(node) for node in self.since]
        self.regrouped = {
            leaf.id for leaf in self.model.in_order() if any(is_within(leaf.path, node) for node in nodes)
        }
        self.take_back_bindings()
        if is_last:
            self.take_back_each_group()
        else:
            self.take_back_groups()
            self.drop_kept()
        self.regroup()
        self.take_back_flags()
        for line in reversed(self.lines):
            self.take_back_name(line)

    def moved_back(self, path, place=None):
        """Where what was renamed since, after this line, is by now."""
        for to, former, first in self.moves:
            if (place is None or place > first) and is_within(path, to):
                path = former + path[len(to) :]
        return path

    def first_lines(self, is_meant):
        """[(leaf, the first of its lines that is meant)], in path order."""
        first = {}
        for place, line in enumerate(self.lines):
            if is_meant(line):
                first.setdefault(line.leaf_id, (place, line))
        return [(leaf, *first[leaf.id]) for leaf in self.model.in_order() if leaf.id in first]

    # ---- places ----

    def take_back_places(self):
        """What was added goes, what was renamed gets its name again; what was removed is gone. Leaves that were added go
        at once, those that were renamed with a node go back with it if it has no others by now."""
        lines = list(reversed(list(enumerate(self.lines))))
        while lines:
            added = []
            while lines and lines[0][1].field != "path":
                _, line = lines.pop(0)
                leaf = self.model.by_id(line.leaf_id)
                if leaf and line.field == "leaf" and not was(line):
                    added.append(leaf)
            self.transaction.take_out([leaf for leaf in self.model.in_order() if leaf in added])
            self.transaction.settle()
            if lines:
                self.take_back_paths(lines)

    def take_back_paths(self, lines):
        """Takes the first of these lines, and those after it that are of the same node."""
        run = []
        node = None  # (its path, the former one)
        while lines and lines[0][1].field == "path":
            place, line = lines[0]
            leaf = self.model.by_id(line.leaf_id)
            if leaf:
                wider = widened(node, line)
                if leaf.path != line.to or not wider:
                    break
                node = wider
                run.append((place, line))
            lines.pop(0)
        if not run:
            if lines and lines[0][1].field == "path":  # an operation before this one has given it another path
                raise Refused("FAILED_PRECONDITION")
            return
        if len([leaf for leaf in self.model.in_order() if is_within(leaf.path, node[0])]) == len(run):
            self.move(*node, run[-1][0])
        else:
            for place, line in run:
                self.move(line.to, was(line), place)
        self.transaction.settle()

    def move(self, path, former, place):
        self.moves.append((path, former, place))
        self.transaction.move(path, former)

    # ---- bindings ----

    def take_back_bindings(self):
        """To the parameter that it was bound to, as its primary leaf where it was that; where it is no more, to one of
        its own."""
        alone = []
        for leaf, _, line in reversed(self.first_lines(lambda line: line.field == "parameter" and was(line))):
            param = next((param for param in self.model.params() if param.id == self.bound[leaf.id][0]), None)
            others = [one for one in param.leaves if one is not leaf] if param else []
            if param is None:
                alone.append(leaf)
            elif others:
                transposed = was(line).endswith(" transposed")
                self.transaction.bind(leaf, others[0], others[0].transposed != transposed, False)
        for line in reversed(self.lines):
            leaf = self.model.by_id(line.leaf_id)
            is_back = leaf and was(line).startswith(f"parameter {leaf.param.id} ({line.path})")
            if line.field == "parameter" and is_back:
                self.lead(leaf)
        self.transaction.settle()
        self.transaction.split_off([leaf for leaf in self.model.in_order() if leaf in alone])
        self.transaction.settle()

    def lead(self, leaf):
        """Its parameter's group stays, for now."""
        param, first = leaf.param, leaf.param.leaves[0]
        if first is leaf:
            return
        if first.id in self.regrouped:
            self.regrouped.add(leaf.id)
        else:
            self.regrouped.discard(leaf.id)
        self.transaction.keep_group(param, self.model.assigned(first.path), first.path)
        param.leaves = [leaf] + [one for one in param.leaves if one is not leaf]

    # ---- groups ----

    def node_of(self, place):
        line = self.lines[place]
        leaf = self.model.by_id(line.leaf_id) if line.leaf_id else None
        return leaf.path if leaf else self.moved_back(line.path, place)

    def take_back_groups(self):
        """As the first line of a node says. What had another path meanwhile comes first: another line may be of the path
        that it has by now."""
        assigned = {}

        def assign():
            for node, group in assigned.items():
                self.transaction.assign(node, group)
            assigned.clear()

        for is_moved in (True, False):
            for place, line in reversed(list(enumerate(self.lines))):
                if line.field == "group" and not line.because:
                    if (self.node_of(place) != line.path) == is_moved:
                        assigned[self.node_of(place)] = was(line) or None
                elif line.field == "optimizer" and not is_moved:
                    assign()
                    self.take_back_optimizer(line)
        assign()

    def take_back_each_group(self):
        """Of the last transaction: line by line, after what going back to places and bindings has done itself."""
        own = self.transaction.changes[self.began :]
        for line in [*reversed(own), *reversed(self.lines)]:
            if line.field == "group":
                self.transaction.assign(line.path, was(line) or None)
            elif line.field == "optimizer":
                self.take_back_optimizer(line)

    def take_back_optimizer(self, line):
        if was(line):
            self.transaction.define_group(line.path, was(line))
        else:
            self.transaction.delete_group(line.path)

    def former(self, node):
        """What was assigned to it, or None."""
        places = [place for place, line in enumerate(self.lines) if line.field == "group" and self.node_of(place) == node]
        places.sort(key=lambda place: (self.lines[place].path != node, place))
        own = [line for line in self.own if line.field == "group" and line.path == node]
        return (was(self.lines[places[0]]) if places else was(own[0])) or None

    def drop_kept(self):
        """Assignments that were written so that a parameter keeps its group, by the transaction or just now: as they were
        before, if no parameter has to keep its group by them."""
        self.own = self.transaction.changes[self.began :]
        nodes = {self.node_of(place) for place, line in enumerate(self.lines) if line.field == "group" and line.because}
        nodes |= {line.path for line in self.lines if line.field == "group" and line.because}
        nodes |= {line.path for line in self.own if line.field == "group" and line.because}
        known = {self.node_of(place) for place, line in enumerate(self.lines) if line.field == "group"}
        known |= {line.path for line in self.own if line.field == "group"}
        nodes &= known
        groups = {}
        for is_leaf in (False, True):
            for node in sorted(node for node in nodes if (node in self.model.leaves) == is_leaf):
                former = self.former(node)
                if self.model.assignments.get(node) not in (None, former) and not self.is_needed(node, former):
                    groups[node] = former
                    if not is_leaf:
                        self.transaction.assign(node, former)
        for node, former in groups.items():
            self.transaction.assign(node, former)

    def is_needed(self, node, instead):
        group = instead or self.model.assigned(node.rpartition(".")[0])
        for param in self.model.params():
            leaf = param.leaves[0]
            is_of_it = is_within(leaf.path, node) and not any(
                is_within(leaf.path, one) and one != node and is_within(one, node) for one in self.model.assignments
            )
            if is_of_it and self.model.assigned(leaf.path) != group and self.keeps_group(leaf):
                return True
        return False

    def is_bound_anew(self, leaf):
        return leaf.id in self.bound and self.bound[leaf.id][0] != leaf.param.id

    def keeps_group(self, leaf):
        """A primary leaf: its parameter was regrouped later, or can't have its former primary leaf."""
        if leaf.id in self.regrouped:
            return True
        if self.is_bound_anew(leaf) or leaf.param.id not in self.primary:
            return False
        return self.moved_back(*self.primary[leaf.param.id]) != leaf.path

    def regroup(self):
        """What has a parameter of its own, as the one that it shared is gone, and what has lost its primary leaf, is in
        the group of the place where the former primary leaf was."""
        has_assigned = any(line.field == "group" and not line.because for line in self.lines)
        has_removed = any(line.field == "parameter" and was(line) and not line.to for line in self.lines)
        given = []
        for param in self.model.params():
            leaf, former = param.leaves[0], None
            if self.is_bound_anew(leaf):
                former = self.primary[self.bound[leaf.id][0]]
            elif has_assigned and has_removed:
                former = self.primary.get(param.id)
            if former and self.model.assigned(self.moved_back(*former)) != self.model.assigned(leaf.path):
                given.append((leaf.path, self.model.assigned(self.moved_back(*former))))
        for path, group in given:
            self.transaction.assign(path, group)

    # ---- flags, timers, names ----

    def of_param(self, field):
        """First lines of a setting of parameters. What a leaf got after it had left the parameter that it is bound to
        again was another one's."""

        def is_meant(place, line):
            number, left = self.bound.get(line.leaf_id, (0, 0))
            leaf = self.model.by_id(line.leaf_id)
            return line.field == field and leaf and not (leaf.param.id == number and place > left)

        meant = {id(line) for place, line in enumerate(self.lines) if is_meant(place, line)}
        return [(leaf, was(line)) for leaf, _, line in self.first_lines(lambda line: id(line) in meant)]

    def take_back_flags(self):
        lines = self.of_param("frozen")
        for flag in (True, False):
            self.transaction.flag_only([leaf for leaf, former in lines if (former == "true") == flag], flag)
        self.take_back_timers()
        lines = self.first_lines(lambda line: line.field == "detached")
        for flag in (True, False):
            self.transaction.flag_detached([leaf for leaf, _, line in lines if (was(line) == "true") == flag], flag)

    def take_back_timers(self):
        """Each leaf has the timer that it had before all of it: that one, if it still waits, or it waits again. Where what
        it waited for has been, a freeze that has an end keeps it."""
        found = [(leaf, int((re.search(r"\(timer (\d+)\)", former) or [0, 0])[1])) for leaf, former in self.of_param("timer")]
        for number in sorted({number for _, number in found}):
            leaves = [leaf for leaf, one in found if one == number]
            waits = any(param.timer == number for param in self.model.params())
            timer = self.model.timers.get(number) if waits else self.timers.get(number)
            if timer and not waits and not timing.is_ahead(self.transaction, timer):
                timer = None
            if number and not timer:
                leaves = [leaf for leaf in leaves if not self.has_end(leaf)]
            timing.give(self.transaction, leaves, timer)
        self.transaction.settle()

    def has_end(self, leaf):
        timer = self.model.timers.get(leaf.param.timer)
        return leaf.param.frozen and timer is not None and not timer.frozen

    def take_back_name(self, line):
        if line.field == "selection":
            self.transaction.name_selection(line.path.removeprefix("@"), was(line))
        elif line.field == "tag" and not line.leaf_id:
            self.transaction.tag(line.path, was(line))


def widened(node, line):
    """The nearest node, at or above this one, with which the leaf of the line was renamed, too; None: there is none."""
    to, former = node or (line.to, was(line))
    while not (is_within(line.to, to) and is_within(was(line), former) and line.to[len(to) :] == was(line)[len(former) :]):
        if to.rpartition(".")[2] != former.rpartition(".")[2] or "." not in to or "." not in former:
            return None
        to, former = to.rpartition(".")[0], former.rpartition(".")[0]
    return to, former
