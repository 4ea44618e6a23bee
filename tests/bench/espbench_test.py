#!/usr/bin/env python3
"""espbench as its users meet it: what it refuses, and what the objects of a short run of `step` say.

    espbench_test.py ESPBENCH

No figure is held against a time: the machine may be doing anything else.
"""
import json
import subprocess
import sys

ESPBENCH = sys.argv[1]
KEYS = ["name", "value", "unit", "limit", "ratio", "min", "max", "rounds"]
WORDS = {"benchmark", "congestion_control", "optimizer", "wire"}
LESS_IS_BETTER = {"memory_above_mb"}
ROUNDS = 3


def run(*words):
    done = subprocess.run([ESPBENCH, *words], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def close(a, b, part=2e-5):
    """Objects have six digits."""
    return abs(a - b) <= part * max(abs(a), abs(b))


def check_refusals():
    for words in ([], ["nothing"], ["admin", "--limits"], ["admin", "--workers=1"], ["step", "--rounds=0"],
                  ["step", "--workers=1000"], ["step", "--seconds=1x"], ["step", "more"], ["step", "--server=x"], ["step", "--wire=f64"], ["admin", "--wire=bf16"],
                  ["many", "--limits"], ["many", "--workers=65"], ["step", "--rank=0"], ["peer", "--rank=64"]):
        code, out, err = run(*words)
        assert code == 2 and out == "" and "usage: espbench" in err, (words, code, out, err)
    for expression in ("clip_norm(1) | sgd", "adam(amsgrad=true)", "sgd(momentum=0.9,nesterov=true)", "sgd(lr=)", "sgd("):
        code, out, err = run("step", "--optimizer", expression)
        assert code == 1 and out == "" and expression in err, (expression, code, out, err)
    code, out, err = run("many", "--workers=1")
    assert code == 1 and out == "" and "--workers" in err, (code, out, err)


def check_result(result):
    assert list(result) == KEYS, result
    if result["name"] in WORDS:
        assert isinstance(result["value"], str) and [result[key] for key in KEYS[3:]] == [None] * 5, result
        return
    assert result["min"] <= result["value"] <= result["max"] and 1 <= result["rounds"] <= ROUNDS, result
    if result["limit"] is None:
        assert result["ratio"] is None, result
        return
    less = result["name"] in LESS_IS_BETTER
    ratio = result["limit"] / result["value"] if less else result["value"] / result["limit"]
    assert close(result["ratio"], ratio), result


def check_step(expression, states, wire="f32"):
    code, out, err = run("step", f"--rounds={ROUNDS}", "--seconds=5", "--workers=2", "--limits", "--json",
                         "--optimizer", expression, "--wire", wire)
    assert code == 0 and err == "", (code, err)
    results = [json.loads(line) for line in out.splitlines()]
    for result in results:
        check_result(result)
    names = [result["name"] for result in results]
    assert len(names) == len(set(names)), names
    found = dict(zip(names, results))
    value = {name: result["value"] for name, result in found.items()}
    with open("/proc/sys/net/ipv4/tcp_congestion_control", encoding="ascii") as file:
        assert value["congestion_control"] == file.read().strip()
    assert (value["benchmark"], value["optimizer"], value["workers"]) == ("step", expression, 2)
    assert value["wire"] == wire
    assert value["pushes"] >= 2 + 2 * 2 * ROUNDS  # one step of each worker before the rounds, a step and a push in each
    check_limits(found, states, 4 if wire == "f32" else 2)


def check_limits(found, states, wire_bytes):
    """Those of a round are not printed, so what they are made of is held against the least and the most of it."""
    gb = 25557032 * wire_bytes / 1e9
    traffic = gb + 25557032 * 4 / 1e9 * 2 * (1 + states)
    for name, parts in (("push_gb_s", ["tcp_up_gb_s"]), ("step_gb_s", ["tcp_up_gb_s", "tcp_down_gb_s"])):
        least, most = (gb / (sum(gb / found[part][end] for part in parts) + traffic / found["triad_gb_s"][end])
                       for end in ("min", "max"))
        assert least * 0.9999 <= found[name]["limit"] <= most * 1.0001, (name, least, most, found[name])
    assert close(found["steps_s"]["limit"] * gb, found["step_gb_s"]["limit"])
    assert close(found["pull_gb_s"]["limit"], found["tcp_down_gb_s"]["value"])
    assert close(found["pull_to_grpc_gb_s"]["limit"], found["grpc_down_gb_s"]["value"])


check_refusals()
check_step("adamw(lr=0.01, weight_decay=0.1)", 2)
check_step("sgd(lr=0.01, momentum=0.9)", 1, "bf16")
check_step("adam(lr=0.01)", 2, "f16")
