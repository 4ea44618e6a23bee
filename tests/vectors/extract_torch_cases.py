#!/usr/bin/env python3
"""Takes the cases of the rules that exist out of the catalogue of measured trajectories.

    extract_torch_cases.py CASES.json > torch_cases.json

The catalogue is not part of this repository; its extract is. Cases of `maximize`, which no rule has, are left out.
"""
import json
import re
import sys

RULES = {"torch.SGD": "sgd", "torch.Adam": "adam", "torch.AdamW": "adamw"}


def number(value):
    return ("true" if value else "false") if isinstance(value, bool) else repr(value)


def expression(rule):
    knobs = []
    for name, value in rule.items():
        if name == "betas":
            knobs += ["beta1=" + number(value[0]), "beta2=" + number(value[1])]
        elif name != "rule":
            knobs.append(name + "=" + number(value))
    return RULES[rule["rule"]] + "(" + ", ".join(knobs) + ")"


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        cases = json.load(file)["cases"]
    out = []
    for case in cases:
        if not re.fullmatch(r"(f32|vec)\.torch\.(SGD|Adam|AdamW)\.\d+", case["id"]) or "maximize" in case["rule"]:
            continue
        states = {k: v for k, v in case["state_final"].items() if k != "step" and v is not None}
        out.append({
            "id": case["id"], "expression": expression(case["rule"]), "dtype": case.get("dtype", "float64"),
            "tol": case["tol"], "verified": case["verified"], "x0": case["x0"], "grads": case["grads"],
            "xs": case["xs"], "states": states,
        })
    print("[\n" + ",\n".join(json.dumps(case) for case in out) + "\n]")


main()
