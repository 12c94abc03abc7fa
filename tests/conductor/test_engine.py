"""The lean engines: they touch TaskFlow's private names, so these tests hold TaskFlow to them."""

import inspect
import re

from taskflow import storage
from taskflow.engines.action_engine import engine, executor

from hullwright.conductor.engine import Graph, Graphs, LeanStorage
from hullwright.flows import catalog
from hullwright.flows.build import build_instance_v1


def test_the_private_names_that_we_override_are_still_taskflows() -> None:
    for name in ("_with_connection", "_save_atom_detail", "_save_flow_detail", "set_task_progress"):
        assert name in vars(storage.Storage), name
        ours = inspect.signature(vars(LeanStorage)[name]).parameters
        theirs = inspect.signature(inspect.unwrap(vars(storage.Storage)[name])).parameters
        assert len(ours) == len(theirs), name
    source = inspect.getsource(engine.ActionEngine)
    for name in ("self._compiled", "self._compilation", "self._runtime", "self._validated", "self._flow_detail", "_check_compilation"):
        assert name in source, name
    assert "self._lock = " in inspect.getsource(storage.Storage.__init__)
    for serial in (executor.SerialTaskExecutor, executor.SerialRetryExecutor):
        asked = set(re.findall(r"self\._executor\.(\w+)", inspect.getsource(serial)))
        assert asked == {"submit", "restart", "shutdown"}, serial


def test_a_graph_is_compiled_once_per_factory() -> None:
    graphs = Graphs()
    path = catalog.path_of(build_instance_v1)
    assert graphs.get(path, build_instance_v1) is graphs.get(path, build_instance_v1)


def test_a_graph_knows_its_steps_and_those_inside_the_retry_loop() -> None:
    graph = Graph(build_instance_v1())
    assert graph.scoped == {"reschedule", "select_host", "claim", "plug_network", "connect_volumes", "fetch_image", "spawn"}
    assert graph.total_steps == 10


def test_every_kinds_factory_is_found_again_by_the_path_that_is_stored() -> None:
    for kind in catalog.KINDS.values():
        assert catalog.find(catalog.path_of(kind.factory), "job") is kind.factory
