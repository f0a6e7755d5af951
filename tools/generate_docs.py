"""Write the documents that come from code: what `make docs` runs, and with `--check` what `make verify` runs."""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = {
    "docs/states.md": "sternpost_mail.states",
    "proto/README.md": "sternpost_runtime.subjects",
}
"""Document and the module that prints it."""


def render(module: str) -> str:
    """What the module prints. Raises SystemExit where it fails."""
    done = subprocess.run(  # noqa: S603 - our own modules
        [sys.executable, "-m", module], capture_output=True, text=True, cwd=ROOT, check=False
    )
    if done.returncode or not done.stdout:
        raise SystemExit(f"python -m {module} printed no document:\n{done.stderr}")
    return done.stdout


def main() -> int:
    """With --check: 1 when a document differs from what its code says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a document is stale")
    check = parser.parse_args().check
    stale = []
    for name, module in DOCUMENTS.items():
        path, wanted = ROOT / name, render(module)
        if path.exists() and path.read_text(encoding="utf-8") == wanted:
            continue
        stale.append(name)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted, encoding="utf-8")
    if stale and check:
        print(f"stale: {', '.join(stale)}; run `make docs` and commit the result", file=sys.stderr)
        return 1
    for name in stale:
        print(f"wrote {name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
