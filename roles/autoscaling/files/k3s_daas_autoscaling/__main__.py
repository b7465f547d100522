"""`python -m k3s_daas_autoscaling --config FILE`: one pass. The role's timer starts the next."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .config import ConfigError, load
from .passes import Pass
from .plays import AnsiblePlays
from .scaling import AwsScaling, ScalingError
from .state import StateError, StateFile


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when all is done, 1 when something has to be tried again, 2 when nothing could be done."""
    parser = argparse.ArgumentParser(prog="k3s_daas_autoscaling", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="what the role autoscaling wrote")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        config = load(options.config)
        # Late, so that a wrong configuration is said without it.
        import boto3

        done = Pass(
            scaling=AwsScaling(boto3.client("autoscaling", region_name=config.region), config.fleet),
            plays=AnsiblePlays(config),
            states=StateFile(config.state_dir),
            now_ms=time.time_ns() // 1_000_000,
            heartbeat_s=config.heartbeat_s,
        ).run()
    except (ConfigError, StateError, ScalingError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
