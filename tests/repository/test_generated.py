"""What is generated is as the code would generate it now; `make docs` brings it up to date."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def generate(*command: str | Path) -> None:
    """Run a generator."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_the_sample_configuration_is_up_to_date(tmp_path: Path) -> None:
    made = tmp_path / "hullwright.conf.sample"
    generator = Path(sys.executable).with_name("oslo-config-generator")
    generate(generator, "--config-file", "etc/hullwright-config-generator.conf", "--output-file", made)
    assert made.read_text() == (ROOT / "etc" / "hullwright.conf.sample").read_text()


def test_the_sample_policy_is_up_to_date(tmp_path: Path) -> None:
    made = tmp_path / "policy.yaml.sample"
    generator = Path(sys.executable).with_name("oslopolicy-sample-generator")
    generate(generator, "--config-file", "etc/hullwright-policy-generator.conf", "--output-file", made)
    assert made.read_text() == (ROOT / "etc" / "policy.yaml.sample").read_text()


def test_the_drawings_of_the_flows_are_up_to_date(tmp_path: Path) -> None:
    made = tmp_path / "flows.md"
    generate(sys.executable, ROOT / "tools" / "draw-flows", made)
    assert made.read_text() == (ROOT / "docs" / "flows.md").read_text()


def test_the_sample_names_no_machine_and_describes_every_choice() -> None:
    text = (ROOT / "etc" / "hullwright.conf.sample").read_text()
    assert str(ROOT) not in text
    assert "No description provided" not in text
