#!/usr/bin/env python3
"""Takes the cases of the rules that exist out of the catalogue of measured trajectories.

    extract_torch_cases.py CASES.json > torch_cases.json

The catalogue is not part of this repository; its extract is. Cases of `maximize`, which no rule has, are left out.
"""
import json
import re
import sys

RULES = {"torch.SGD": "sgd", "torch.Adam": "adam", "torch.AdamW": "adamw"}

# Cases of other frameworks whose rules ours can say; their states have other names and, in Keras, other signs.
CLIPS = {
    "f32.optax.chain.1": "clip_global_norm(max=1.0, eps=0) | adamw(lr=0.03, weight_decay=0.1)",
    "f32.optax.chain.2": "clip_value(max=0.5) | sgd(lr=0.1, momentum=0.9)",
    "f32.keras.SGD.5": "clip_value(max=0.5) | sgd(lr=0.1, momentum=0.9)",
    "vec.chain(ClipNorm>Adam).1": "clip_norm(max=0.5, eps=0) | adam(lr=0.1)",
}


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
        if case["id"] in CLIPS:
            out.append({"id": case["id"], "expression": CLIPS[case["id"]], "states": {},
                        **{key: case[key] for key in ("tol", "x0", "grads", "xs")},
                        "dtype": case.get("dtype", "float64"), "verified": case.get("verified", case["origin"])})
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
