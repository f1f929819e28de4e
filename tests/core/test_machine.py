"""What a result says of the machine it was obtained on."""

from __future__ import annotations

import subprocess
from importlib import metadata

import pytest

from metadarts.core import machine


def test_versions_are_those_installed_and_none_of_what_is_not():
    assert machine.version("torch") == metadata.version("torch")
    assert machine.version("no such package") is None


def test_a_machine_has_a_name():
    assert machine.device_name("cpu").strip()


def git_of(monkeypatch, answers):
    def answer(command, **_):
        found = answers.get(command[1])
        if found is None:
            raise subprocess.CalledProcessError(128, command)
        return found

    monkeypatch.setattr(subprocess, "check_output", answer)


@pytest.mark.parametrize(("status", "expected"), [("", "0123456789ab"), (" M file\n", "0123456789ab+")])
def test_a_commit_says_when_files_differ_from_it(monkeypatch, status, expected):
    git_of(monkeypatch, {"rev-parse": "0123456789ab\n", "status": status})
    assert machine.commit() == expected


@pytest.mark.parametrize("told", ["fedcba", None])
def test_outside_a_checkout_the_commit_is_what_one_is_told(monkeypatch, told):
    git_of(monkeypatch, {})
    monkeypatch.delenv("METADARTS_COMMIT", raising=False)
    if told:
        monkeypatch.setenv("METADARTS_COMMIT", told)
    assert machine.commit() == told
