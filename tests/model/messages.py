"""What an operation looks like on the wire."""

import harness
from harness import admin, types, wire
from model import KINDS, WIRE_DTYPES


def toggle(kind, path):
    """A transaction of one operation on one leaf."""
    operation = {"operations": [{kind: {"selection": path}}], "if_epoch": None, "dry": False, "key": ""}
    return {**operation, "max_leaves": 0}


def push_messages(grads, chunk, message=wire.PushRequest, header="push", **fields):
    """A header and chunks, in one message where they are not cut."""
    data = [(name, array.tobytes()) for name, array in grads]
    total = sum(len(one) for _, one in data)
    kind = wire.StageHeader if header == "header" else wire.PushHeader
    first = message(**{header: kind(leaf_count=len(data), total_bytes=total, **fields)})
    chunks = harness.chunks_of(dict(data), chunk or 1 << 20)
    if not chunk and total < 1 << 20:
        first.chunks.extend(chunks)
        return [first]
    return [first] + [message(chunks=[one]) for one in chunks]


def as_stream(messages):
    return [wire.StreamRequest(push=one.push if one.HasField("push") else None, chunks=one.chunks) for one in messages]


def initializer(init):
    kind, a, b, seed = init
    init = types.Initializer(seed=seed)
    if kind == "constant":
        init.constant = a
    elif kind == "uniform":
        init.uniform.low, init.uniform.high = a, b
    elif kind == "normal":
        init.normal.mean, init.normal.stddev = a, b
    else:
        setattr(init, kind, True)
    return init


def leaf_spec(spec):
    named = {name: spec[name] for name in ("path", "shape", "tag", "group", "frozen", "detached")}
    alias = {"alias_of": spec["alias_of"], "view": spec["view"]} if spec.get("alias_of") else {}
    return types.LeafSpec(
        dtype=WIRE_DTYPES[spec["dtype"]],
        kind=KINDS[spec["kind"]],
        init=initializer(spec["init"]),
        **named,
        **alias,
    )


def merge(pages):
    merged = admin.ApplyResponse()
    for page in pages:
        merged.MergeFrom(page)
    return merged


def arguments_of(kind, arguments):
    """As the message has them."""
    if kind == "reinit":
        return {**arguments, "init": initializer(arguments["init"])}
    if kind == "add":
        return {"leaf": leaf_spec(arguments["leaf"])}
    return arguments
