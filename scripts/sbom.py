#!/usr/bin/env python3
"""Writes what the binary is built from as a CycloneDX 1.6 document, from `cargo metadata` and Cargo.lock.

Usage: sbom.py OUTPUT. Packages that only tests and builds use are left out.
"""

import json
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def metadata():
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)


def checksums():
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    return {(p["name"], p["version"]): p.get("checksum") for p in lock["package"]}


def is_normal(dependency):
    return any(kind["kind"] is None for kind in dependency["dep_kinds"])


def reachable(nodes, root):
    """The packages that the root is linked with."""
    seen, waiting = set(), [root]
    while waiting:
        package = waiting.pop()
        if package not in seen:
            seen.add(package)
            waiting.extend(d["pkg"] for d in nodes[package]["deps"] if is_normal(d))
    return seen


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, checksum):
    entry = {
        "type": "library",
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "purl": purl(package),
    }
    if package.get("license"):
        entry["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if checksum:
        entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return entry


def document():
    data = metadata()
    packages = {package["id"]: package for package in data["packages"]}
    nodes = {node["id"]: node for node in data["resolve"]["nodes"]}
    root = next(p for p in packages.values() if p["name"] == "convergio")
    sums = checksums()
    linked = sorted(reachable(nodes, root["id"]), key=lambda id: purl(packages[id]))
    components = [
        component(packages[id], sums.get((packages[id]["name"], packages[id]["version"])))
        for id in linked
        if id != root["id"]
    ]
    depends = [
        {
            "ref": purl(packages[id]),
            "dependsOn": sorted(purl(packages[d["pkg"]]) for d in nodes[id]["deps"] if is_normal(d)),
        }
        for id in linked
    ]
    names = "\n".join(purl(packages[id]) for id in linked)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        # The same packages give the same document.
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, names)}",
        "version": 1,
        "metadata": {"component": {**component(root, None), "type": "application"}},
        "components": components,
        "dependencies": depends,
    }


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    bom = document()
    Path(sys.argv[1]).write_text(json.dumps(bom, indent=1) + "\n")
    print(f"{len(bom['components'])} packages in {sys.argv[1]}")


main()
