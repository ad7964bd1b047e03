"""Generates code from the contracts.

`python generate.py <folder>` writes Python modules and their type stubs; `python generate.py --image <file>` writes
the descriptor set that `buf lint` and `buf breaking` read.
"""

from __future__ import annotations

import sys
import sysconfig
import tempfile
from importlib import resources
from pathlib import Path

import google.rpc.status_pb2
from grpc_tools import protoc
from protobuf.wkt.google.protobuf import descriptor_pb
from protovalidate._gen.buf.validate import validate_pb

HERE = Path(__file__).resolve().parent
VALIDATE = "buf/validate/validate.proto"


def _write_validate_descriptors(target: Path) -> None:
    """protovalidate's wheel holds its rules in compiled form only; protoc reads them as a descriptor set."""
    rules = validate_pb.desc()
    files = descriptor_pb.FileDescriptorSet(file=[*(item.proto for item in rules.dependencies), rules.proto])
    target.write_bytes(files.to_binary())


def _protoc(arguments: list[str], *, extra: tuple[str, ...] = ()) -> None:
    well_known = resources.files("grpc_tools") / "_proto"
    google_rpc = Path(google.rpc.status_pb2.__file__).parents[2]
    sources = [str(path.relative_to(HERE)) for path in sorted(HERE.glob("ospay/**/*.proto"))]
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder) / "validate.binpb"
        _write_validate_descriptors(rules)
        includes = [f"-I{HERE}", f"-I{well_known}", f"-I{google_rpc}", f"--descriptor_set_in={rules}"]
        if protoc.main(["protoc", *includes, *arguments, *sources, *extra]) != 0:
            raise SystemExit("protoc failed")


def generate(target: Path) -> None:
    """Writes `ospay/**` and `buf/validate` modules below `target`."""
    target.mkdir(parents=True, exist_ok=True)
    scripts = Path(sysconfig.get_path("scripts"))
    _protoc(
        [
            f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
            f"--python_out={target}",
            f"--grpc_python_out={target}",
            f"--mypy_out=quiet:{target}",
            f"--mypy_grpc_out=quiet:{target}",
        ],
        extra=(VALIDATE,),
    )
    (target / "ospay" / "py.typed").touch()  # without it mypy does not read the stubs


def image(target: Path) -> None:
    """Writes a self-contained descriptor set, comments included."""
    _protoc(["--include_imports", "--include_source_info", f"--descriptor_set_out={target}"])


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--image", file]:
            image(Path(file))
        case [folder]:
            generate(Path(folder))
        case _:
            raise SystemExit(__doc__)
