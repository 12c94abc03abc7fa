"""Drift: where the records disagree with each other or with the hosts although nobody is working there. Found, told, mended.

`checks*` say what must be true, one function each; `view` is what they look at; `repairs` mends a finding after checking it again in
the transaction of the repair; `doctor` looks twice and decides; `power` keeps power states true; `caretaker` does all of it regularly.
"""
