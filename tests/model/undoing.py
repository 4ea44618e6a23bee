"""The naive model's undo, by design.md (sections 4 and 11), docs/espctl.md and the header of server/engine/undo.c: the
lines of the transaction's diff, read backwards, are taken back on the tree of now, unless a later transaction touched the
same. Groups come before bindings, flags and names last."""

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
    if any(thing(line) in touched for one in later if one.epoch not in passed for line in one.changes):
        raise Refused("FAILED_PRECONDITION")
    take_back_places(transaction, lines)
    take_back_groups(transaction, lines)
    take_back_bindings(transaction, lines)
    take_back_steppers(transaction, lines)
    waiting = {leaf.id: leaf.param.timer for leaf in transaction.model.in_order()}
    take_back_flags(transaction, lines)
    take_back_timers(transaction, lines, waiting, history[place].timers)
    for line in reversed(lines):
        take_back_name(transaction, line)


def loses(lines):
    """Whether an undo of these lines has to say that something is not brought back."""
    return any(line.field in ("value", "state") or (line.field == "leaf" and not line.to) for line in lines)


def brings_all_back(before, model):
    """Whether an undo at once has all that it needs to make the tree what it was before: no leaf, no parameter went."""
    params = {param.id for param in model.params()}
    leaves = {leaf.id for leaf in model.leaves.values()}
    return all(number in leaves and bound in params for number, (*_, bound, _) in before["leaves"].items())


def differs(before, now):
    """Whether these pictures are others. The group of a parameter that has another primary leaf now is none of that: groups
    come before bindings, so it may be that of its place."""
    leaves = {number: list(leaf) for number, leaf in now["leaves"].items()}
    for number, leaf in before["leaves"].items():
        if number in leaves and leaf[4].keys() != leaves[number][4].keys():
            leaves[number][4] = leaf[4]
    return before != {**now, "leaves": {number: tuple(leaf) for number, leaf in leaves.items()}}


def take_back_places(transaction, lines):
    """What was added goes, what was renamed gets its name again; what was removed is gone. Leaves that were added go at
    once, those that were renamed with a node go back with it if it has no others by now."""
    model = transaction.model
    lines = list(reversed(lines))
    while lines:
        added = []
        while lines and lines[0].field != "path":
            line = lines.pop(0)
            leaf = model.by_id(line.leaf_id)
            if leaf and line.field == "leaf" and not was(line):
                added.append(leaf)
        transaction.take_out([leaf for leaf in model.in_order() if leaf in added])
        transaction.settle()
        if lines:
            take_back_paths(transaction, lines)


def take_back_paths(transaction, lines):
    """Takes the first of these lines, and those after it that are of the same node."""
    model = transaction.model
    run = []
    node = None  # (its path, the former one)
    while lines and lines[0].field == "path":
        line = lines[0]
        leaf = model.by_id(line.leaf_id)
        if leaf:
            wider = widened(node, line)
            if leaf.path != line.to or not wider:
                break
            node = wider
            run.append(line)
        lines.pop(0)
    if not run:
        if lines and lines[0].field == "path":  # an operation before this one has given it another path
            raise Refused("FAILED_PRECONDITION")
        return
    if len([leaf for leaf in model.in_order() if is_within(leaf.path, node[0])]) == len(run):
        transaction.move(*node)
    else:
        for line in run:
            transaction.move(line.to, was(line))
    transaction.settle()


def widened(node, line):
    """The nearest node, at or above this one, with which the leaf of the line was renamed, too; None: there is none."""
    to, former = node or (line.to, was(line))
    while not (is_within(line.to, to) and is_within(was(line), former) and line.to[len(to) :] == was(line)[len(former) :]):
        if to.rpartition(".")[2] != former.rpartition(".")[2] or "." not in to or "." not in former:
            return None
        to, former = to.rpartition(".")[0], former.rpartition(".")[0]
    return to, former


def take_back_groups(transaction, lines):
    """Of several assignments to one node, with no group defined between them, the last counts."""
    assigned = {}

    def assign():
        for node, group in assigned.items():
            transaction.assign(node, group)
        assigned.clear()

    for line in reversed(lines):
        if line.field == "group" and not line.because:
            assigned[line.path] = was(line) or None
        elif line.field == "optimizer":
            assign()
            if was(line):
                transaction.define_group(line.path, was(line))
            else:
                transaction.delete_group(line.path)
    assign()


def first_lines(transaction, lines, is_meant):
    """[(leaf, the first of its lines that is meant)], in path order."""
    first = {}
    for line in lines:
        if is_meant(line):
            first.setdefault(line.leaf_id, line)
    return [(leaf, first[leaf.id]) for leaf in transaction.model.in_order() if leaf.id in first]


def take_back_bindings(transaction, lines):
    """To the parameter that it was bound to; where that is no more, to one of its own."""
    alone = []
    for leaf, line in reversed(first_lines(transaction, lines, lambda line: line.field == "parameter" and was(line))):
        number = int(re.match(r"parameter (\d+)", was(line))[1])
        param = next((param for param in transaction.model.params() if param.id == number), None)
        others = [one for one in param.leaves if one is not leaf] if param else []
        if param is None:
            alone.append(leaf)
        elif others:
            transposed = was(line).endswith(" transposed")
            transaction.bind(leaf, others[0], others[0].transposed != transposed, False)
    transaction.settle()
    transaction.split_off([leaf for leaf in transaction.model.in_order() if leaf in alone])
    transaction.settle()


def take_back_steppers(transaction, lines):
    """What they are tied to brought leaves into another group. Where that was taken back they are there again; else they
    are assigned to it: first the primary leaves, which others follow."""
    for only_primary in (True, False):
        given = []
        for leaf, line in first_lines(transaction, lines, lambda line: line.field == "stepped_by" and line.because):
            is_meant = not only_primary or leaf.param.leaves[0] is leaf
            if is_meant and transaction.model.group_of(leaf.param) != was(line):
                given.append((leaf.path, was(line)))
        for path, group in given:
            transaction.assign(path, group)


def take_back_flags(transaction, lines):
    for field, setting in (("frozen", transaction.flag_frozen), ("detached", transaction.flag_detached)):
        first = {}  # what each was before all of it
        for line in reversed(lines):
            if line.field == field:
                first[line.leaf_id] = was(line) == "true"
        for flag in (True, False):
            setting([leaf for leaf in transaction.model.in_order() if first.get(leaf.id) is flag], flag)


def take_back_timers(transaction, lines, waiting, timers):
    """Each leaf has the timer that it had before all of it: that one, if it still waits, or it waits again, unless what it
    waited for has been. One whose flag alone changes back keeps what it has."""
    transaction.settle()
    first = {}  # leaf's id: timer's
    for line in lines:
        if line.field == "timer" and was(line):
            first.setdefault(line.leaf_id, int(re.search(r"\(timer (\d+)\)", was(line))[1]))
        elif line.field == "timer":
            first.setdefault(line.leaf_id, 0)
    for line in lines:
        if line.field == "frozen" and line.leaf_id in waiting:
            first.setdefault(line.leaf_id, waiting[line.leaf_id])
    for number in sorted(set(first.values())):
        timer = transaction.model.timers.get(number) or timers.get(number)
        timer = timer if timer and timing.is_ahead(transaction, timer) else None
        timing.give(transaction, [leaf for leaf in transaction.model.in_order() if first.get(leaf.id) == number], timer)
    transaction.settle()


def take_back_name(transaction, line):
    if line.field == "selection":
        transaction.name_selection(line.path.removeprefix("@"), was(line))
    elif line.field == "tag" and not line.leaf_id:
        transaction.tag(line.path, was(line))
