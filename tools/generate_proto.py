"""Generate the Python code of proto/ into libs/wire/src: `make proto`, and with `--check` `make verify`.

The output depends only on the .proto files and on the version of grpcio-tools that uv.lock pins. With `--check` nothing
is written: the code is generated into a temporary directory and every difference from the committed code is named.
"""

import argparse
import difflib
import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
OUTPUT = ROOT / "libs" / "wire" / "src"
PACKAGE = "sternpost_wire/v1"

INIT = '"""Generated from proto/sternpost_wire/v1 by `make proto`. Do not edit."""\n'
STUB_HEADER = '# mypy: disable-error-code="type-arg"\n# (protoc writes a bare Mapping for every message parameter)\n'
MAX_DIFF_LINES = 40
"""Lines of one file's difference that are shown: enough to see which field changed."""


def generate(output: Path) -> None:
    """Write the modules and stubs of every .proto below `output`. Raises SystemExit when protoc refuses a file."""
    sources = sorted(str(path.relative_to(PROTO)) for path in (PROTO / PACKAGE).glob("*.proto"))
    if not sources:
        raise SystemExit(f"no .proto file below {PROTO / PACKAGE}")
    google = Path(grpc_tools.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{PROTO}", f"-I{google}", f"--python_out={output}", f"--pyi_out={output}", *sources]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc refused the files above; nothing is usable until they are right")
    package = output / PACKAGE
    (package / "__init__.py").write_text(INIT, encoding="utf-8")
    for stub in package.glob("*_pb2.pyi"):
        stub.write_text(STUB_HEADER + stub.read_text(encoding="utf-8"), encoding="utf-8")


def generated_files(output: Path) -> dict[str, str]:
    """The text of each generated file, by its name."""
    package = output / PACKAGE
    names = [*package.glob("*_pb2.py"), *package.glob("*_pb2.pyi"), *package.glob("__init__.py")]
    return {path.name: path.read_text(encoding="utf-8") for path in names}


def write() -> None:
    """Generate in place; a module whose .proto is gone goes too."""
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        wanted, present = generated_files(Path(scratch)), generated_files(OUTPUT)
    package = OUTPUT / PACKAGE
    package.mkdir(parents=True, exist_ok=True)
    for name in present.keys() - wanted.keys():
        (package / name).unlink()
    for name, text in wanted.items():
        if present.get(name) != text:
            (package / name).write_text(text, encoding="utf-8")


def check() -> int:
    """0 when the committed code is what the .proto files give, else 1 with the differences on stderr."""
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        wanted, present = generated_files(Path(scratch)), generated_files(OUTPUT)
    stale = sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))
    for name in stale:
        before, after = present.get(name, "").splitlines(), wanted.get(name, "").splitlines()
        diff = list(difflib.unified_diff(before, after, f"committed/{name}", f"generated/{name}", lineterm=""))
        print(*diff[:MAX_DIFF_LINES], sep="\n", file=sys.stderr)
    if stale:
        print(f"generated code is stale: {', '.join(stale)}; run `make proto` and commit the result", file=sys.stderr)
    return 1 if stale else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the committed code is stale")
    if parser.parse_args().check:
        return check()
    write()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
