"""The long-running service: leases jobs, runs and resumes their flows, recovers what died, watches hosts.

`client.py` is the other side: what the API uses to post work. It imports none of the rest.
"""
