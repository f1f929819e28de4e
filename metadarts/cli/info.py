"""``metadarts info``: what this machine and installation offer."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from metadarts.core.errors import ConfigError

from . import common


def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    kernels: Annotated[
        bool,
        typer.Option("--kernels", help="Also load torch and show threads and the implementations of each operator."),
    ] = False,
    device: common.Device = "auto",
    threads: common.Threads = 0,
) -> None:
    """Show versions, commit, device and cores; with --kernels also the implementations of the operators."""
    facts = _with_kernels(device, threads) if kernels or threads else _at_once(device)
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        shown = ", ".join(f"{k} {_plain(v)}" for k, v in value.items()) if isinstance(value, dict) else _plain(value)
        common.console.print(f"{name}: {shown}", soft_wrap=True)


def _at_once(device: str) -> dict[str, Any]:
    from metadarts.core import machine

    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"unknown device {device!r}: valid names: auto, cpu, cuda")
    found = [] if device == "cpu" else machine.cards()
    if device == "cuda" and not found:
        raise ConfigError("--device cuda: there is no CUDA device that torch could use; use --device cpu or auto")
    return machine.describe_installation("cuda" if found else "cpu", machine.PACKAGES)


def _with_kernels(device: str, threads: int) -> dict[str, Any]:
    from metadarts.ops import implementations
    from metadarts.training.environment import describe

    resolved = common.prepare(device, threads)
    return describe(resolved) | {"kernels": {name: list(kinds) for name, kinds in implementations(resolved).items()}}


def _plain(value: object) -> str:
    if value is None:
        return "not installed"
    return " + ".join(map(str, value)) if isinstance(value, list) else str(value)
