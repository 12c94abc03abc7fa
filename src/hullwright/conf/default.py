"""[DEFAULT]: where this installation keeps its things."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "DEFAULT"
OPTS = [
    cfg.StrOpt(
        "state_path",
        default="var",
        help="Directory of this installation's own files: the SQLite database, images, sockets, logs. "
        "Relative paths count from the working directory.",
    ),
    cfg.StrOpt(
        "log_level",
        default="INFO",
        choices=[
            ("DEBUG", "all there is to tell"),
            ("INFO", "what is done, too"),
            ("WARNING", "what an operator should know of, too"),
            ("ERROR", "only what failed for good"),
        ],
        help="Least severe messages that are logged.",
    ),
    cfg.StrOpt(
        "default_availability_zone",
        default="nova",
        help="Availability zone of hosts that were given none.",
    ),
    cfg.BoolOpt(
        "force_config_drive",
        default=True,
        help="Give every server a config drive, whether its request asks for one or not. There is no metadata service: a guest "
        "without config drive learns neither its name nor its keys nor its user data from us. When false, servers whose request or "
        "whose image (img_config_drive=mandatory) asks for one get it.",
    ),
]
