"""Alembic's environment and the schema's revisions. `persistence/schema.py` runs them."""
