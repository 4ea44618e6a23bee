"""The naive model's declarations: one transaction for all leaves and nodes of a stream."""

from harness import wire
from model import Refused, initial, is_within
from surgery import Transaction


def declare(model, specs, nodes, values):
    """The reply, and the ids. values: {place in specs: array}."""
    transaction, timers = Transaction(model, {}), model.timers
    new = transaction.model
    set_nodes(transaction, nodes, {spec["path"] for spec in specs if spec["group"]})
    if len({spec["path"] for spec in specs}) < len(specs):
        raise Refused("INVALID_ARGUMENT")
    for spec in specs:
        initial(spec["init"], spec["dtype"], 1)  # is it one?
    ids = []
    fresh = []  # specs
    for place, spec in enumerate(specs):
        leaf = new.leaves.get(spec["path"])
        if leaf is not None:
            new.check_same(leaf, spec)
        else:
            new.check_place(spec["path"])
            if spec["path"] in new.removed:
                raise Refused("FAILED_PRECONDITION")
            leaf = transaction.bear(spec, values.get(place))
            fresh.append(spec)
        ids.append(leaf.id)
    transaction.tie_born(fresh)
    for line in transaction.changes:
        if line.field == "group" and line.path in new.leaves:  # a node's setting that turned out to be a leaf's
            line.leaf_id = new.leaves[line.path].id
    for flag, setting in (("frozen", transaction.flag_frozen), ("detached", transaction.flag_detached)):
        above = [node["path"] for node in nodes if node[flag]]
        born = {spec["path"] for spec in fresh if any(is_within(spec["path"], node) for node in above)}
        setting([leaf for leaf in new.in_order() if leaf.path in born], True)
    transaction.commit()
    model.__dict__ = new.__dict__
    model.record(transaction.changes, "", "declaration", timers=timers)
    reply = wire.DeclareReply(added=len(fresh), epoch=model.epoch, commit=model.commit, lineage=model.lineage)
    return reply, ids


def set_nodes(transaction, nodes, own):
    """Settings of nodes that are not there yet: no leaf is below them, nothing is assigned to them, no tag is theirs. A
    node that is a leaf of the same declaration has that one's group, where it has one: `own` are the paths of those."""
    model = transaction.model
    there = list(model.leaves)
    known = model.assignments.keys() | model.tags.keys()
    for node in nodes:
        if node["path"] in known or any(is_within(path, node["path"]) for path in there):
            continue
        if node["group"] and node["path"] not in own:
            transaction.assign(node["path"], node["group"])
        if node.get("tag"):
            transaction.tag(node["path"], node["tag"])
