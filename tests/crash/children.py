"""What runs in child processes of the harness besides a conductor: one request to the API, and a user's delete while a build runs."""

from __future__ import annotations

import concurrent.futures
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from hullwright.conductor.client import Asker, ConductorClient
from hullwright.conf import database as database_options
from hullwright.conf import opts
from hullwright.objects.errors import InstanceNotFound
from hullwright.persistence.database import Database
from hullwright.persistence.wakeup import Wakeup

_ASKER = Asker(request_id="req-act", project_id="p", user_id="u")


def delete(overrides: dict[str, dict[str, Any]], instance_uuid: str) -> None:
    """Post a delete twice at once, as two other processes would: each with a database connection of its own."""
    with concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="user-") as users:
        posted = [users.submit(_delete, overrides, instance_uuid) for _ in range(2)]
    jobs = [future.result() for future in posted]
    assert sum(job is not None for job in jobs) == 1, f"one delete is posted, not {jobs}"


def _delete(overrides: dict[str, dict[str, Any]], instance_uuid: str) -> str | None:
    conf = opts.load([], overrides)
    db = Database(database_options.url(conf))
    wakeup = Wakeup(db, conf.state_path)
    try:
        return ConductorClient(db, conf, wakeup).delete_server(instance_uuid, _ASKER)
    except InstanceNotFound:  # the other one's has been done already
        return None
    finally:
        wakeup.close()
        db.close()


def ask_api(overrides: dict[str, dict[str, Any]], preamble: str, log: str, request: dict[str, Any], answer: str) -> None:
    """An API process that answers one request: {"method", "path", "json"}. What the client hears goes to the file `answer`."""
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    logging.basicConfig(level="INFO", stream=sys.stderr)
    from falcon.testing import TestClient

    from hullwright.api.app import create_app

    scope: dict[str, Any] = {}
    exec(preamble, scope)
    conf = opts.load([], overrides)
    db = Database(database_options.url(conf))
    wakeup = Wakeup(db, conf.state_path)
    client = TestClient(create_app(db, conf, ConductorClient(db, conf, wakeup)))
    headers = {"OpenStack-API-Version": "compute 2.100"}
    result = client.simulate_request(request["method"], request["path"], json=request.get("json"), headers=headers)
    scope["boundaries"].cross("before answer")
    Path(answer).write_text(json.dumps({"status": result.status_code, "json": result.json if result.content else None}))
    scope["boundaries"].cross("after answer")
