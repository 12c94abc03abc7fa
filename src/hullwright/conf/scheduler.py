"""[scheduler]: which checks a host must pass, what makes one host better than another, how fresh the view of them is."""

from __future__ import annotations

from oslo_config import cfg, types

GROUP = "scheduler"
_NOVAS_GROUP = "filter_scheduler"  # where Nova has them
OPTS = [
    cfg.IntOpt(
        "max_attempts",
        default=3,
        min=1,
        help="How many hosts a build is tried on before it ends in ERROR. 1 disables rescheduling.",
    ),
    cfg.IntOpt(
        "wait_for_capacity",
        default=0,
        min=0,
        help="Seconds that a build waits for room when no host fits, before it ends in ERROR with the reasons; its place in the queue is "
        "shown meanwhile. 0: it fails at once, or within 5 s where others wait for the same. A request says otherwise by the scheduler "
        "hint wait_for_capacity.",
    ),
    cfg.IntOpt(
        "max_wait_for_capacity",
        default=86_400,
        min=0,
        help="The longest wait for room, in seconds, that a request may ask for.",
    ),
    cfg.MultiStrOpt(
        "available_filters",
        deprecated_group=_NOVAS_GROUP,
        default=["all"],
        help="What enabled_filters may name, one to a line: all (those of Hullwright and entry points in the group hullwright.filters), "
        "single ones of them, or a module of your own by its dotted path, which then goes by the path's last word. "
        "nova.scheduler.filters.all_filters means all.",
    ),
    cfg.ListOpt(
        "enabled_filters",
        deprecated_group=_NOVAS_GROUP,
        default=[
            "retry",
            "compute_up",
            "availability_zone",
            "capacity",
            "traits",
            "compute_capabilities",
            "image_properties",
            "server_group_anti_affinity",
            "server_group_affinity",
        ],
        help="Checks that a host must pass, in order; a host is counted under the first that it fails. retry, compute_up, "
        "availability_zone, capacity and traits come first, and they and those of server groups are on even when they are not named "
        "(lists written for Nova lack most of them). Names of files in hullwright.scheduler.filters, of entry points in the group "
        "hullwright.filters, or Nova's names (ComputeFilter, ...).",
    ),
    cfg.ListOpt(
        "weight_classes",
        deprecated_group=_NOVAS_GROUP,
        default=[
            "ram",
            "cpu",
            "disk",
            "io_ops",
            "num_instances",
            "hypervisor_version",
            "image_cached",
            "image_properties",
            "metrics",
            "soft_affinity",
            "soft_anti_affinity",
            "build_failures",
        ],
        help="What makes one host better than another. Names of files in hullwright.scheduler.weighers, of entry points in the "
        "group hullwright.weighers, Nova's names, modules of your own by their dotted paths, or all.",
    ),
    cfg.FloatOpt(
        "ram_weight_multiplier",
        deprecated_group=_NOVAS_GROUP,
        default=1.0,
        help="Weight of free memory. Positive spreads instances over the hosts, negative packs them.",
    ),
    cfg.FloatOpt(
        "cpu_weight_multiplier",
        deprecated_group=_NOVAS_GROUP,
        default=1.0,
        help="Weight of free virtual CPUs. Positive spreads instances over the hosts, negative packs them.",
    ),
    cfg.FloatOpt(
        "disk_weight_multiplier",
        deprecated_group=_NOVAS_GROUP,
        default=1.0,
        help="Weight of free disk. Positive spreads instances over the hosts, negative packs them.",
    ),
    cfg.FloatOpt(
        "build_failure_weight_multiplier",
        deprecated_group=_NOVAS_GROUP,
        default=1_000_000.0,
        help="How strongly builds that failed on a host since its last success speak against it. The default outweighs all else.",
    ),
    cfg.FloatOpt(
        "io_ops_weight_multiplier",
        deprecated_group=_NOVAS_GROUP,
        default=-1.0,
        help="Weight of the builds under way on a host. Negative prefers hosts with fewer.",
    ),
    cfg.FloatOpt(
        "num_instances_weight_multiplier",
        deprecated_group=_NOVAS_GROUP,
        default=0.0,
        help="Weight of the number of instances on a host. Positive packs, negative spreads.",
    ),
    cfg.FloatOpt(
        "hypervisor_version_weight_multiplier",
        deprecated_group=_NOVAS_GROUP,
        default=1.0,
        help="Weight of the hypervisor's version. Positive prefers newer ones.",
    ),
    cfg.FloatOpt(
        "image_cached_weight_multiplier",
        default=0.5,
        help="Weight of the image lying on a host already. Less than that of free memory: it decides among hosts that are about as free.",
    ),
    cfg.FloatOpt(
        "image_props_weight_multiplier",
        deprecated_group=_NOVAS_GROUP,
        default=0.0,
        help="Weight of the instances on a host whose images have the same properties. Positive packs, negative spreads. While it is 0, "
        "images of instances are not even read.",
    ),
    cfg.Opt(
        "image_props_weight_setting",
        deprecated_group=_NOVAS_GROUP,
        type=types.Dict(types.Float(), key_value_separator="="),
        default={},
        help="Which image properties image_props_weight_multiplier is about and how much each counts, such as os_distro=10,os_type=1. What "
        "is not named does not count then. Empty: all that begin with hw_, img_ or os_ count once.",
    ),
    cfg.FloatOpt(
        "soft_affinity_weight_multiplier",
        deprecated_group=_NOVAS_GROUP,
        default=1.0,
        min=0.0,
        help="How strongly members of a soft-affinity server group are drawn to each other.",
    ),
    cfg.FloatOpt(
        "soft_anti_affinity_weight_multiplier",
        deprecated_group=_NOVAS_GROUP,
        default=1.0,
        min=0.0,
        help="How strongly members of a soft-anti-affinity server group avoid each other.",
    ),
    cfg.IntOpt(
        "max_io_ops_per_host",
        deprecated_group=_NOVAS_GROUP,
        default=8,
        min=0,
        help="Builds under way on one host, for the filters io_ops and aggregate_io_ops; the latter prefers aggregates' metadata of this "
        "name.",
    ),
    cfg.IntOpt(
        "max_instances_per_host",
        deprecated_group=_NOVAS_GROUP,
        default=50,
        min=1,
        help="Instances on one host, for the filters num_instances and aggregate_num_instances; the latter prefers aggregates' metadata of "
        "this name.",
    ),
    cfg.ListOpt(
        "isolated_images",
        deprecated_group=_NOVAS_GROUP,
        default=[],
        help="Ids of images that may go to isolated_hosts only, for the filter isolated_hosts.",
    ),
    cfg.ListOpt(
        "isolated_hosts",
        deprecated_group=_NOVAS_GROUP,
        default=[],
        help="Names of hosts for isolated_images, for the filter isolated_hosts.",
    ),
    cfg.BoolOpt(
        "restrict_isolated_hosts_to_isolated_images",
        deprecated_group=_NOVAS_GROUP,
        default=True,
        help="Whether isolated_hosts take isolated_images only.",
    ),
    cfg.StrOpt(
        "aggregate_image_properties_isolation_namespace",
        deprecated_group=_NOVAS_GROUP,
        help="What metadata of aggregates begins with that the filter aggregate_image_properties_isolation looks at. Unset: all of it.",
    ),
    cfg.StrOpt(
        "aggregate_image_properties_isolation_separator",
        deprecated_group=_NOVAS_GROUP,
        default=".",
        help="What stands between that namespace and the rest.",
    ),
    cfg.IntOpt(
        "host_subset_size",
        deprecated_group=_NOVAS_GROUP,
        default=1,
        min=1,
        help="Choose at random among this many best hosts. 1 takes the best.",
    ),
    cfg.BoolOpt(
        "shuffle_best_same_weighed_hosts",
        deprecated_group=_NOVAS_GROUP,
        default=False,
        help="Choose at random among hosts that share the best weight, instead of the first of them.",
    ),
    cfg.FloatOpt(
        "snapshot_max_age_seconds",
        default=0.1,
        min=0.0,
        help="How old the scheduler's view of the hosts may be. Claims are exact whatever its age: an older view costs less and "
        "loses more claims to other conductors. A build is never refused on an old view.",
    ),
    cfg.StrOpt(
        "image_properties_default_architecture",
        deprecated_group=_NOVAS_GROUP,
        help="Architecture that an image is taken to have when it names none, such as x86_64. Unset: any host will do.",
    ),
]
