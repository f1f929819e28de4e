"""``metadarts info``: what this machine and installation offer."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from . import common


def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    device: common.Device = "auto",
    threads: common.Threads = 0,
) -> None:
    """Versions, device, threads, and the implementations available for each operator."""
    from metadarts.ops import implementations
    from metadarts.training.environment import describe

    resolved = common.prepare(device, threads)
    facts = describe(resolved) | {"kernels": {name: list(kinds) for name, kinds in implementations(resolved).items()}}
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        shown = ", ".join(f"{k} {_plain(v)}" for k, v in value.items()) if isinstance(value, dict) else _plain(value)
        common.console.print(f"{name}: {shown}", soft_wrap=True)


def _plain(value: object) -> str:
    if value is None:
        return "not installed"
    return " + ".join(map(str, value)) if isinstance(value, list) else str(value)
