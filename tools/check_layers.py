#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that the includes of include/mor follow tools/layers.txt.

usage: check_layers.py [PROJECT_ROOT]

Prints one line FILE:LINE: REASON for each broken rule and exits with status 1 if there is one:
  - an include crosses folders only where layers.txt allows it, and the graph in layers.txt has no cycle;
  - mor headers are included as "mor/FOLDER/FILE", with quotes, and exist;
  - no .hpp includes a .cuh.
Files over 400 lines get a warning, which is no failure.
"""
import re
import sys
from pathlib import Path

MAX_LINES = 400
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def read_graph(path):
    """The graph of layers.txt: {folder: set of folders it may include}, and the list of mistakes in the file."""
    graph, mistakes = {}, []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        line = line.split("#")[0].strip()
        if not line:
            continue
        folder, colon, allowed = line.partition(":")
        if not colon or folder.strip() in graph:
            mistakes.append(f"{path}:{number}: expected 'FOLDER: FOLDERS', each folder once")
            continue
        graph[folder.strip()] = set(allowed.split())
    for folder, allowed in graph.items():
        for unknown in sorted(allowed - graph.keys()):
            mistakes.append(f"{path}:1: {folder} may include {unknown}, which has no line of its own")
    mistakes += [f"{path}:1: cycle: {' -> '.join(cycle)}" for cycle in find_cycles(graph)]
    return graph, mistakes


def find_cycles(graph):
    """One path for each folder that can reach itself."""
    cycles = []
    for start in graph:
        paths, seen = [[start]], set()
        while paths:
            path = paths.pop()
            for following in sorted(graph.get(path[-1], ())):
                if following == start:
                    cycles.append(path + [start])
                elif following not in seen:
                    seen.add(following)
                    paths.append(path + [following])
    return cycles


def layer_of(file, graph):
    """The longest folder of the graph that holds `file` (relative to include/mor), or None."""
    folders = [parent.as_posix() for parent in file.parents]
    return next((folder for folder in folders if folder in graph), None)


def check_include(file, bracket, target, graph, include_root):
    """The reason why `file` (relative to include/mor) must not include `target`, or None."""
    if not target.startswith("mor/"):
        if bracket == '"' or (include_root / "mor" / file.parent / target).is_file():
            return f'write #include "mor/FOLDER/FILE" for mor headers, <...> for others, not "{target}"'
        return None
    if bracket != '"':
        return f'write #include "{target}" with quotes'
    if not (include_root / target).is_file():
        return f"{target} does not exist"
    if file.suffix == ".hpp" and target.endswith(".cuh"):
        return f"a .hpp must not include {target}: it would need the CUDA compiler"
    if file.parent == Path("."):
        return None  # an umbrella
    source = layer_of(file, graph)
    if source is None:
        return f"{file.parent} has no line in tools/layers.txt"
    if Path(target).parent == Path("mor"):
        return f"{source} must not include the umbrella {target}"
    reached = layer_of(Path(target).relative_to("mor"), graph)
    if reached is None or (reached != source and reached not in graph[source]):
        return f"forbidden edge {source} -> {reached} ({target})"
    return None


def main():
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    include_root = root / "include"
    graph, mistakes = read_graph(root / "tools" / "layers.txt")
    files = sorted(path for path in (include_root / "mor").rglob("*") if path.suffix in (".hpp", ".cuh"))
    for path in files:
        lines = path.read_text().splitlines()
        shown, file = path.relative_to(root), path.relative_to(include_root / "mor")
        if len(lines) > MAX_LINES:
            print(f"{shown}:{len(lines)}: warning: more than {MAX_LINES} lines")
        for number, line in enumerate(lines, 1):
            match = INCLUDE.match(line)
            reason = match and check_include(file, match[1], match[2], graph, include_root)
            if reason:
                mistakes.append(f"{shown}:{number}: {reason}")
    for mistake in mistakes:
        print(mistake)
    print(f"{len(files)} files, {len(mistakes)} broken rules")
    return 1 if mistakes else 0


if __name__ == "__main__":
    sys.exit(main())
