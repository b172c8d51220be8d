#!/usr/bin/env python3
"""Holds the dependency arrows and a few bans that no compiler checks. Prints every breach, exits 1 if there is one."""

import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Who may use whom (normal and build dependencies). Arrows point down: cli, runner, registry, classes, core.
# A package that is not listed here is a breach: say where it stands first.
CLASSES = {"remuda-local"}
ARROWS = {
    "remuda-core": set(),
    "remuda-macros": set(),
    "remuda-local": {"remuda-core", "remuda-dask"},
    "remuda-dask": {"remuda-core"},
    "remuda-registry": {"remuda-core"} | CLASSES,
    "remuda": {"remuda-core", "remuda-macros", "remuda-registry", "remuda-dask"} | CLASSES,
    "remuda-cli": {"remuda"},
    "remuda-tests": {"remuda-core"},
    "remuda-examples": {"remuda"},
    "remuda-bench": {"remuda", "remuda-core"},
    "remuda-bench-adaptive": {"remuda-core"},
}

# Weight that must not reach a crate, however indirectly.
HEAVY = r"(kube|k8s-openapi|aws-.*|hyper|rustls|libloading|clap|indicatif|minijinja|serde_yaml.*|serde_norway|saphyr.*|toml)"
LIGHT = {"remuda-core": HEAVY, "remuda": r"(kube|k8s-openapi|aws-.*|clap|indicatif)"}

breaches = []


def run(*argv):
    return subprocess.run(argv, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def arrows():
    packages = json.loads(run("cargo", "metadata", "--format-version=1", "--no-deps", "--locked"))["packages"]
    ours = {package["name"] for package in packages}
    for package in packages:
        name = package["name"]
        if name not in ARROWS:
            breaches.append(f"{name}: no place among the arrows of .ci/fences.py")
            continue
        used = {d["name"] for d in package["dependencies"] if d["kind"] != "dev" and d["name"] in ours}
        for other in sorted(used - ARROWS[name]):
            breaches.append(f"{name} -> {other}: this arrow does not point down")
        if not package["targets"]:
            breaches.append(f"{name}: an empty crate")


def weight():
    for name, banned in LIGHT.items():
        tree = run("cargo", "tree", "--locked", "-p", name, "-e", "normal", "--prefix", "none", "--format", "{p}")
        for line in sorted(set(tree.splitlines())):
            if line and re.fullmatch(banned, line.split()[0]):
                breaches.append(f"{name} depends on {line.split()[0]}: see `cargo tree -p {name} -e normal -i {line.split()[0]}`")


def texts():
    for path in run("git", "ls-files").splitlines():
        file = ROOT / path
        if path.endswith((".rs", ".md")) and file.is_file():
            for number, line in enumerate(file.read_text().splitlines(), 1):
                if re.search(r"```.*\bignore\b", line) and path != ".ci/fences.py":
                    breaches.append(f"{path}:{number}: an example that nothing compiles")
        if path.endswith(".rs") and "unsafe_code" not in path and file.is_file():
            if re.search(r"\ballow\(unsafe_code\)", file.read_text()):
                breaches.append(f"{path}: unsafe code where it is forbidden")


def lints():
    for manifest in [*ROOT.glob("*/Cargo.toml"), *ROOT.glob("bench/*/Cargo.toml")]:
        text = manifest.read_text()
        if re.search(r"^\[workspace\]", text, re.MULTILINE):
            continue  # a workspace of its own, for another toolchain
        if not re.search(r"\[lints\]\s*workspace = true", text):
            breaches.append(f"{manifest.relative_to(ROOT)}: does not take the workspace's lints")


for check in (arrows, weight, texts, lints):
    check()
for breach in breaches:
    print(f"fence: {breach}")
if breaches:
    sys.exit(1)
print("fences hold: arrows, weight, compiled examples, lints")
