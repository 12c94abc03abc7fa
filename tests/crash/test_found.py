"""What the harness found once, told plainly."""

import sqlalchemy as sa

from hullwright.persistence.models.instances import instance_actions
from support.house import House


def test_the_action_of_a_build_that_was_deleted_before_anybody_began_it_is_closed(house: House) -> None:
    (uuid,) = house.create()
    house.delete(uuid)
    with house.db.read() as connection:
        rows = connection.execute(sa.select(instance_actions).order_by(instance_actions.c.id)).mappings().all()
    assert [(row["action"], row["finished_at"] is not None) for row in rows] == [("create", True), ("delete", False)]
