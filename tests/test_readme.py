"""What README.md shows runs as it stands there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.programs import ROOT, run

_README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_its_python_runs_in_its_order(tmp_path: Path) -> None:
    blocks = [block for block in re.findall(r"```python\n(.*?)```", _README, re.DOTALL) if "rl.train" not in block]
    assert len(blocks) == 3
    program = tmp_path / "readme.py"
    program.write_text("\n".join(blocks), encoding="utf-8")
    done = run([sys.executable, "-W", "error", str(program)])
    assert done.returncode == 0, done.stderr
    assert "FitResult(" in done.stdout
