"""The crash harness: each operation, killed at every boundary of its effects, ends as if it had not been.

`scenarios` says what is done and how it must end, `cases` runs one kill, `plan` all of them, `report` writes the table.
"""
