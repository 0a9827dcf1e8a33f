"""Make everything that follows from the proto files: Python code, typed stubs and the image that buf reads.

Usage: ``python protos/generate.py code | check | image [--no-comments] FILE``

All three start from one *image*: a `FileDescriptorSet` that holds our files with their comments, and every import.

The Python code is made from the same image after two changes:

- ``generated/`` is put before the names of our files. protoc derives Python imports from file names, so the code
  imports itself as ``generated.apex.agent.v1.agent_pb2`` and needs no patching.
- The import of ``buf/validate/validate.proto`` is dropped. The rules stay in the options as bytes, where protovalidate
  reads them with its own copy of that file; a second copy in protobuf's pool is neither needed nor accepted.
"""

import argparse
import filecmp
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2
from protovalidate import ViolationPb

PROTOS = Path(__file__).resolve().parent
ROOT = PROTOS.parent
PACKAGE = "generated"
#: Files of this folder become Python code; the others (google/…) come with libraries.
OWN_FOLDER = "apex/"
RULES_FILE = "buf/validate/validate.proto"
PACKAGE_DOCSTRING = '"""Made by `make generate` from the files in `protos/`; never edited by hand."""\n'


class GenerationError(Exception):
    """protoc or one of its plug-ins refused; the message is what it printed."""


def protoc(*arguments: str) -> None:
    """Run protoc. Raises `GenerationError` with its output."""
    result = subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise GenerationError(result.stdout + result.stderr)


def validation_rules() -> descriptor_pb2.FileDescriptorSet:
    """Return the file of the rules and its imports; its wheel carries the descriptor, not the file."""
    files = descriptor_pb2.FileDescriptorSet()
    for module in (descriptor_pb2, duration_pb2, timestamp_pb2, field_mask_pb2):
        files.file.add().MergeFromString(module.DESCRIPTOR.serialized_pb)
    files.file.add().MergeFromString(ViolationPb.desc().file.proto.to_binary())
    return files


def write_image(image: Path, *, comments: bool = True) -> None:
    """Write our files and all that they import as one `FileDescriptorSet`."""
    sources = sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.rglob("*.proto"))
    if not sources:
        message = f"no .proto file under {PROTOS}"
        raise GenerationError(message)
    with tempfile.TemporaryDirectory() as scratch:
        rules = Path(scratch) / "validate.binpb"
        rules.write_bytes(validation_rules().SerializeToString(deterministic=True))
        protoc(
            f"-I{PROTOS}",
            f"--descriptor_set_in={rules}",
            "--include_imports",
            *(["--include_source_info"] if comments else []),
            f"--descriptor_set_out={image}",
            *sources,
        )


def under_package(image: bytes) -> descriptor_pb2.FileDescriptorSet:
    """Return the image with our own files moved under the Python package, and without the file of the rules."""
    files = descriptor_pb2.FileDescriptorSet()
    for file in descriptor_pb2.FileDescriptorSet.FromString(image).file:
        if file.name == RULES_FILE:
            continue
        file.name = packaged(file.name)
        imports = [packaged(name) for name in file.dependency if name != RULES_FILE]
        del file.dependency[:]
        file.dependency.extend(imports)
        files.file.append(file)
    return files


def packaged(name: str) -> str:
    """Return a proto file's name as the generated code knows it."""
    return f"{PACKAGE}/{name}" if name.startswith(OWN_FOLDER) else name


def write_code(target: Path) -> None:
    """Write the package `generated` into the folder `target`."""
    scripts = Path(sysconfig.get_path("scripts"))
    with tempfile.TemporaryDirectory() as scratch:
        image = Path(scratch) / "image.binpb"
        write_image(image)
        files = under_package(image.read_bytes())
        image.write_bytes(files.SerializeToString(deterministic=True))
        names = [file.name for file in files.file if file.name.startswith(f"{PACKAGE}/")]
        services = [file.name for file in files.file if file.service]
        arguments = [f"--descriptor_set_in={image}"]
        protoc(
            *arguments,
            f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
            f"--python_out={target}",
            f"--mypy_out={target}",
            *names,
        )
        if services:
            protoc(
                *arguments,
                f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
                f"--grpc_python_out={target}",
                f"--mypy_grpc_out={target}",
                *services,
            )
    package = target / PACKAGE
    for folder in (package, *(path for path in package.rglob("*") if path.is_dir())):
        (folder / "__init__.py").write_text(PACKAGE_DOCSTRING, encoding="utf-8")


def listing(package: Path) -> set[Path]:
    """Return the relative paths of the source files of a generated package."""
    return {path.relative_to(package) for path in package.rglob("*.py*") if path.suffix in {".py", ".pyi"}}


def replace_code() -> None:
    """Bring the committed package up to date: write what changed, remove what no proto file makes any more."""
    package = ROOT / PACKAGE
    with tempfile.TemporaryDirectory() as scratch:
        write_code(Path(scratch))
        fresh = Path(scratch) / PACKAGE
        for stale in listing(package) - listing(fresh):
            (package / stale).unlink()
        for name in sorted(listing(fresh)):
            destination = package / name
            destination.parent.mkdir(parents=True, exist_ok=True)
            destination.write_bytes((fresh / name).read_bytes())


def drift() -> list[str]:
    """Return the generated files that differ from what the proto files make now."""
    package = ROOT / PACKAGE
    with tempfile.TemporaryDirectory() as scratch:
        write_code(Path(scratch))
        fresh = Path(scratch) / PACKAGE
        names = listing(fresh) | listing(package)
        same, _, _ = filecmp.cmpfiles(fresh, package, [str(name) for name in names], shallow=False)
        return sorted(f"{PACKAGE}/{name}" for name in names if str(name) not in same)


def main() -> int:
    """Run the command that the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("code", help="write the package `generated`")
    commands.add_parser("check", help="fail if `generated` is not what the proto files make")
    image = commands.add_parser("image", help="write the image that buf lint and buf breaking read")
    image.add_argument("file", type=Path)
    image.add_argument("--no-comments", action="store_true", help="leave out comments and positions")
    options = parser.parse_args()
    try:
        if options.command == "code":
            replace_code()
        elif options.command == "image":
            options.file.parent.mkdir(parents=True, exist_ok=True)
            write_image(options.file, comments=not options.no_comments)
        elif changed := drift():
            print("These files are not what protos/ makes; run `make generate`:", *changed, sep="\n  ", file=sys.stderr)
            return 1
    except GenerationError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
