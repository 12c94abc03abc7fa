"""For tests and benchmarks: a hypervisor that makes records instead of guests."""
