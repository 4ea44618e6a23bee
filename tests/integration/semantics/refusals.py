"""Transactions that are refused: what each is called, its operations, the code of the answer, and what its message must
say. refuse_test.py beside this declares the tree that they are about.
"""

from semantics import adjust, attach, define, detach, freeze, leaf, thaw, tie, types

BAD, NONE, STATE, LATER = "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED"
FULL = "RESOURCE_EXHAUSTED"
DEEP = ".".join("x" * 65)
LONG = "x" * 256


def untie(selection):
    return {"untie": {"selection": selection}}


def regroup(selection, group):
    return {"regroup": {"selection": selection, "group": group}}


def copy(one, to):
    return {"copy": {"from": one, "to": to}}


def rename(one, to):
    return {"rename": {"from": one, "to": to}}


def add(path, *shape, **rest):
    rest.setdefault("init", {"zeros": True})
    return {"add": {"leaf": leaf(path, *shape, **rest)}}


def remove(selection):
    return {"remove": {"selection": selection}}


def reinit(selection, **init):
    return {"reinit": {"selection": selection, "init": init}}


def reset(selection):
    return {"reset": {"selection": selection}}


def drop(name):
    return {"delete_group": {"name": name}}


def name(name, selection):
    return {"name_selection": {"name": name, "selection": selection}}


def stage(selection, number):
    return {"set": {"selection": selection, "stage": number}}


# Those of one operation; STAGE stands for the number of a stage that has enc.0.w and head.w.
STAGE = object()
ROWS = (
    # Selections, in each operation that takes one.
    ("freeze, no match", freeze("encoder"), NONE, r'no leaf matches "encoder"; nearest: "chain", "dec", "enc"'),
    ("freeze, no match of a part", freeze("enc & tag:Dens"), NONE, r'no leaf matches "tag:Dens".*"Dense"'),
    ("freeze, nothing left", freeze("enc & head"), NONE, r'no leaf matches "enc & head": 5 match "enc", 1 match "head"'),
    ("freeze, nothing named", freeze(""), BAD, r"names no leaves"),
    ("freeze, an open brace", freeze("enc.{0,1"), BAD, r"selector, column 5: "),
    ("freeze, an unknown condition", freeze("head | nme:b"), BAD, r"selector, column 8: .*nme:"),
    ("freeze, a missing operand", freeze("enc &"), BAD, r"selector, column 6: "),
    ("freeze, an unknown selection", freeze("@nosuch"), BAD, r'selector, column 2: no selection is named "nosuch"'),
    ("freeze, one that refers to what is gone", freeze("@old"), NONE, r'no leaf matches "gone\.\*"'),
    ("freeze, a bad number", freeze("size>1e9"), BAD, r"selector, column 7: "),
    ("freeze, too long", freeze("a" * 8193), BAD, r"8193 bytes is longer than 8192"),
    ("thaw, no match", thaw("enc.2"), NONE, r'no leaf matches "enc\.2"; nearest: "enc\.0'),
    ("thaw, nothing frozen", thaw("enc & frozen"), NONE, r'no leaf matches "enc & frozen": 5 match'),
    ("detach, no match", detach("name:bais"), NONE, r'no leaf matches "name:bais"'),
    ("detach, a parenthesis", detach("(enc"), BAD, r"selector, column 1: "),
    ("attach, no match", attach("group:hed"), NONE, r'no leaf matches "group:hed"'),
    ("untie, no match", untie("enc.9"), NONE, r'no leaf matches "enc\.9"'),
    ("regroup, no match", regroup("decoder", "head"), NONE, r'no leaf matches "decoder"'),
    ("set, no match", stage("decoder", STAGE), NONE, r'no leaf matches "decoder"'),
    ("remove, no match", remove("enc.*.bias"), NONE, r'no leaf matches "enc\.\*\.bias"'),
    ("reinit, no match", reinit("dtype:f16", zeros=True), NONE, r'no leaf matches "dtype:f16"'),
    ("reset, no match", reset("rank:7"), NONE, r'no leaf matches "rank:7"'),
    ("reset, nothing named", reset(""), BAD, r"names no leaves"),
    # Ties.
    ("tie to itself", tie("enc.0.w", "enc.0.w"), BAD, r"leaf enc\.0\.w can't be paired with itself"),
    ("tie of a node to itself", tie("enc.0", "enc.0"), BAD, r"leaf enc\.0\.b can't be paired with itself"),
    ("tie of a node to its descendant", tie("enc", "enc.0"), BAD, r"one of enc and enc\.0 lies below the other"),
    ("tie of a node to what it is below", tie("enc.0", "enc"), BAD, r"one of enc\.0 and enc lies below the other"),
    ("tie of overlapping patterns", tie("enc.*.w", "enc.0.w"), BAD, r'"enc\.0\.w", column 8: its wildcards'),
    ("tie, a half that is not there", tie("chain.*", "chain.*.next"), NONE, r"leaf chain\.a has no other half: "),
    ("tie, another shape", tie("enc.0.b", "head.w"), BAD, r'leaf "enc\.0\.b" can\'t be tied to "head\.w": .*\[3\].*\[4\]'),
    ("tie, another rank", tie("enc.0.w", "enc.0.b"), BAD, r'leaf "enc\.0\.w" can\'t be tied to "enc\.0\.b": '),
    ("tie, not transposed", tie("dec.w", "enc.0.w"), BAD, r'leaf "dec\.w" can\'t be tied to "enc\.0\.w": '),
    ("tie, transposed where it does not fit", tie("enc.1.w", "enc.0.w", transpose=True), BAD, r'leaf "enc\.1\.w"'),
    ("tie, a transpose of rank 1", tie("enc.1.b", "enc.0.b", transpose=True), BAD, r'leaf "enc\.1\.b".*rank 2'),
    ("tie, another dtype", tie("narrow.w", "enc.0.w"), BAD, r'leaf "narrow\.w" can\'t be tied .*f32.*f64'),
    ("tie, a buffer", tie("enc.0.b", "mean"), BAD, r'leaf "enc\.0\.b" can\'t be tied to "mean": .*buffer'),
    ("tie, no such leaf", tie("enc.0.x", "enc.0.w"), NONE, r'no leaf matches "enc\.0\.x"; nearest: '),
    ("tie, no such target", tie("enc.0.w", "enc.7.w"), NONE, r"leaf enc\.0\.w has no other half: there is no leaf enc\.7\.w"),
    ("tie, a half that is missing", tie("enc.0", "half"), NONE, r"leaf enc\.0\.b has no other half: there is no leaf half\.b"),
    ("tie, more wildcards", tie("enc.*.w", "*.*.w"), BAD, r'"\*\.\*\.w", column 3: its wildcards'),
    ("tie, no target", tie("enc.0.w", ""), BAD, r"does not say where to"),
    ("tie, an unknown view", {"tie": {"leaf": "enc.1.w", "to": "enc.0.w", "view": 7}}, BAD, r'"enc\.1\.w" has no view that is known'),
    # Groups.
    ("adjust, an unknown group", adjust("nosuch", lr=1), NONE, r"there is no group nosuch; there are: .*head"),
    ("adjust, nothing", adjust("head"), BAD, r"names no hyperparameter"),
    ("adjust, an unknown name", adjust("head", beta3=0.5), BAD, r"group head: adam has no hyperparameter 'beta3'; known are: lr"),
    ("adjust, an ambiguous name", adjust("chain", lr=1), BAD, r"group chain: 'lr' is in several rules.*0\.lr, 1\.lr"),
    ("adjust, no number", adjust("head", lr="fast"), BAD, r"group head: lr must be .*'fast'"),
    ("adjust, out of range", adjust("head", beta1=1), BAD, r"group head: .*beta1 must be a number in \[0, 1\)"),
    ("adjust, negative", adjust("head", lr=-1), BAD, r"group head: lr must be .*'-1'"),
    ("adjust, not finite", adjust("head", lr="nan"), BAD, r"group head: lr must be .*'nan'"),
    ("adjust, against another", adjust("default", nesterov="true", momentum=0), BAD, r"group default: .*nesterov"),
    ("adjust, one of two", adjust("head", lr=1, beta2=2), BAD, r"group head: .*beta2"),
    ("adjust, a schedule", adjust("head", lr="cosine(0.1, total=100)"), LATER, r"group head: lr=cosine.*schedules are not implemented"),
    ("define, an unknown rule", define("new", "adamm(lr=1)"), BAD, r"group new: column 1: .*adamm.* known are: "),
    ("define, an unknown name", define("new", "sgd(lr=1, beta1=2)"), BAD, r"group new: column 11: "),
    ("define, twice the same", define("new", "sgd(lr=1, lr=2)"), BAD, r"group new: column 11: "),
    ("define, a norm that is not first", define("new", "sgd | clip_norm(1)"), BAD, r"group new: column 7: "),
    ("define, what has no default", define("new", "clip_norm | sgd"), BAD, r"group new: column 1: clip_norm needs max"),
    ("define, cut short", define("new", "sgd(lr=1"), BAD, r"group new: column 9: "),
    ("define, empty", define("new", ""), BAD, r"group new: column 1: "),
    ("define, too many rules", define("new", " | ".join(["sgd"] * 9)), BAD, r"group new: column 49: a chain has at most 8 rules"),
    ("define, a schedule", define("new", "sgd(lr=cosine(0.1, total=10))"), LATER, r"group new: column 8: "),
    ("define, no name", define("", "sgd"), BAD, r"the name of a group is empty"),
    ("define, a control character", define("a\nb", "sgd"), BAD, r'group "a\\x0ab" has a control character'),
    ("define, a long name", define(LONG, "sgd"), BAD, r"more than 255 bytes"),
    ("delete, an unknown group", drop("nosuch"), NONE, r'no group is called "nosuch"'),
    ("delete, default", drop("default"), STATE, r'group "default" can\'t be deleted'),
    ("regroup, no name", regroup("enc", ""), BAD, r"the name of a group is empty"),
    ("regroup, a bad name", regroup("enc", "a\x7fb"), BAD, r'group "a\\x7fb" has a control character'),
    # Values.
    ("set, no such stage", stage("enc.0.w", 77), STATE, r"there is no stage 77"),
    ("set, more than the stage has", stage("enc.0", STAGE), STATE, r"leaf enc\.0\.b is selected, but the stage has no value"),
    ("copy, another shape", copy("enc.0.b", "head.w"), BAD, r"leaf enc\.0\.b is f64 \[3\], and leaf head\.w f64 \[4\]"),
    ("copy, another dtype", copy("narrow.w", "enc.0.w"), BAD, r"leaf narrow\.w is f32 .*leaf enc\.0\.w f64"),
    ("copy, a buffer", copy("mean", "enc.0.b"), BAD, r"leaf mean and leaf enc\.0\.b: one is a buffer"),
    ("copy to itself", copy("enc.0.w", "enc.0.w"), BAD, r"leaf enc\.0\.w can't be paired with itself"),
    ("copy, below the other", copy("enc", "enc.1"), BAD, r"one of enc and enc\.1 lies below the other"),
    ("copy, no such leaf", copy("enc.0.x", "enc.0.w"), NONE, r'no leaf matches "enc\.0\.x"'),
    ("copy, the last of a node differs", copy("enc.0", "odd"), BAD, r"leaf enc\.0\.w is f64 \[2, 3\], and leaf odd\.w"),
    ("reinit, no initialiser", {"reinit": {"selection": "enc"}}, BAD, r'reinit of "enc" without an initializer'),
    ("reinit, a value that follows", reinit("enc", follows=True), BAD, r'reinit of "enc" with a value that follows'),
    ("reinit, not finite", reinit("enc", constant=float("nan")), BAD, r"initialiser constant: nan is not finite"),
    ("reinit, a low above the high", reinit("enc", uniform={"low": 1, "high": 0}), BAD, r"initialiser uniform: high 0 is below low 1"),
    ("reinit, a negative deviation", reinit("enc", normal={"stddev": -1}), BAD, r"initialiser normal: stddev -1 is below 0"),
    # Places.
    ("rename, no such leaf", rename("decoder", "d"), NONE, r'no leaf matches "decoder"; nearest: '),
    ("rename onto a leaf", rename("enc.0.w", "head.w"), BAD, r'"enc\.0\.w" renamed there would be two leaves "head\.w"'),
    ("rename below a leaf", rename("enc", "head.w.enc"), BAD, r'"enc" renamed leaf "head\.w\.enc.*would lie below "head\.w"'),
    ("rename to a node's place", rename("head.w", "enc"), BAD, r'"head\.w" renamed.*below "enc"'),
    ("rename, an empty component", rename("enc", "a..b"), BAD, r'path "a\.\.b": component 2 is empty'),
    ("rename, an operator", rename("enc", "a*b"), BAD, r'path "a\*b": component 1 has'),
    ("rename, too deep", rename("enc.0.w", DEEP), BAD, r"has 65 components; at most 64"),
    ("rename, nowhere", rename("enc", ""), BAD, r"does not say where to"),
    ("add, there already", add("enc.0.w", 2, 3), STATE, r"leaf enc\.0\.w is there already"),
    ("add, there with another shape", add("enc.0.w", 3, 3), BAD, r'leaf "enc\.0\.w" is f64 \[2, 3\], and is declared as f64 \[3, 3\]'),
    ("add below a leaf", add("head.w.more", 2), BAD, r'leaf "head\.w\.more" would lie below "head\.w"'),
    ("add above a leaf", add("enc", 2), BAD, r'leaf "enc" would lie above "enc\.0'),
    ("add, a dimension of 0", add("new", 2, 0), BAD, r"leaf new: shape \[2, 0\] has a dimension 0"),
    ("add, rank 9", add("new", *[1] * 9), BAD, r'"new" has rank 9'),
    ("add, no dtype", {"add": {"leaf": types.LeafSpec(path="new", shape=[2])}}, BAD, r'"new" has no dtype'),
    ("add, a dtype that is not built", add("new", 2, dtype="DTYPE_BF16"), LATER, r"leaf new: parameters of bf16 are not built yet"),
    ("add, too large", add("new", 1 << 40), FULL, r"leaf new: .*--max-t"),
    ("add, a value that follows", add("new", 2, init={"follows": True}), BAD, r'"new": the value of an added leaf can\'t follow'),
    ("add, an alias of nothing", add("new", 2, 3, alias_of="enc.0.x"), NONE, r"leaf new: no leaf has the path enc\.0\.x"),
    ("add, an alias of another shape", add("new", 3, alias_of="enc.0.w"), BAD, r'"new" can\'t be tied to "enc\.0\.w"'),
    ("add, an alias of itself", add("new", 3, alias_of="new"), BAD, r"leaf new is an alias of new, which leads back"),
    ("add, a bad path", add("a.b&c", 1), BAD, r'path "a\.b&c": component 2 '),
    ("add, nothing", {"add": {}}, BAD, r"adds a leaf without saying which"),
    # The rest.
    ("name, what refers to itself", name("new", "enc | @new"), BAD, r"the named selection @new would refer to itself$"),
    ("name, a circle", name("old", "@loop"), BAD, r"the named selection @old would refer to itself, through @loop, @pool$"),
    ("name, no name", name("", "enc"), BAD, r"the name of a selection is empty"),
    ("name, a bad name", name("a b", "enc"), BAD, r'selection "a b" has white space'),
    ("name, bad text", name("new", "enc &"), BAD, r'selection "new": selector, column 6: '),
    ("undo, no such epoch", {"undo": {"epoch": 9999}}, NONE, r"made epoch 9999"),
    ("cancel, no such timer", {"cancel_timer": {"timer": 99}}, NONE, r"no timer 99 waits; none does"),
    ("cancel, no timer", {"cancel_timer": {}}, BAD, r"it names no timer"),
    ("freeze, until a commit that has been", {"freeze": {"selection": "enc", "until_commit": 1}}, STATE, r"commit 1 has been"),
    ("thaw, at a commit that has been", {"thaw": {"selection": "enc", "at_commit": 1}}, STATE, r"commit 1 has been"),
    ("freeze, two ends", {"freeze": {"selection": "enc", "until_commit": 1 << 40, "for_ms": 1}}, BAD, r"one of them can be given"),
    ("freeze, an end before its beginning", {"freeze": {"selection": "enc", "at_commit": 1 << 40, "until_commit": 9}}, BAD, r"can't end at commit 9"),
    ("thaw, one by one, no path", {"thaw": {"selection": "frozen", "one_by_one": True, "every_commits": 5}}, BAD, r"one by one go the nodes"),
    ("no operation", {}, BAD, r"empty, or of a kind that this server does not know"),
)
# Each kind of operation once, on a subtree that no row is about: what comes before the one that fails.
BEFORE = (
    freeze("pre.a"),
    detach("pre.b"),
    tie("pre.b", "pre.a"),
    reinit("pre.c", normal={"stddev": 1.0}),
    reset("pre.c"),
    copy("pre.c", "pre.d"),
    rename("pre.d", "pre.z"),
    remove("pre.f"),
    add("pre.g", 5),
    define("early", "adam"),
    regroup("pre.c", "early"),
    adjust("spare", lr=7),
    drop("unused"),
    name("early", "pre"),
    thaw("pre.a"),
    attach("pre.b"),
    untie("pre.b"),
)
