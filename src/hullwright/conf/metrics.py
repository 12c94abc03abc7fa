"""[metrics]: how numbers that hosts tell of themselves decide between them."""

from __future__ import annotations

from oslo_config import cfg, types

GROUP = "metrics"
OPTS = [
    cfg.FloatOpt(
        "weight_multiplier",
        default=1.0,
        help="Weight of the metrics of weight_setting. Metadata metrics_weight_multiplier of a host's aggregates goes before it.",
    ),
    cfg.Opt(
        "weight_setting",
        type=types.Dict(types.Float(), key_value_separator="="),
        default={},
        help="Which metrics count and how much, such as cpu.percent=-1.0,cpu.frequency=0.01: a host's number is the sum of its metrics "
        "times these. Hosts tell metrics only where [compute] compute_monitors says so. Empty: none counts, and none is read.",
    ),
    cfg.BoolOpt(
        "required",
        default=True,
        help="Whether a host needs all of these metrics to be weighed. One that lacks some then counts as the least of those that have "
        "them; the filter metrics keeps builds from it. If false, it counts as weight_of_unavailable.",
    ),
    cfg.FloatOpt(
        "weight_of_unavailable",
        default=-10_000.0,
        help="The number of a host that lacks one of these metrics, while they are not required.",
    ),
]
