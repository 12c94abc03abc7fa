"""What builds and deletes ask of the database: each statement is made into SQL once in a process, however often it is used."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from sqlalchemy.sql import compiler

from support.house import House


def test_no_statement_is_compiled_again_for_a_build_or_a_delete(house_on_each: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house = house_on_each
    house.add_host("h1")
    compiled: Counter[str] = Counter()
    make = compiler.SQLCompiler.__init__

    def note(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        compiled[str(self)] += 1

    with house.conductor():
        for number in range(4):
            if number == 1:  # what the first one compiled may be compiled once more by another of the threads
                monkeypatch.setattr(compiler.SQLCompiler, "__init__", note)
            (uuid,) = house.create()
            house.rest()
            house.delete(uuid)
            house.rest()
    assert {statement: times for statement, times in compiled.items() if times > 1} == {}
