"""Which of a user's files are datasets, and which one a request is about."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from agent_service.engine.tool import ToolContext, ToolError
from agent_service.tools.measures import clip
from storage.errors import RecordNotFoundError
from storage.interfaces import Files
from storage.records import FileRecord

SAMPLE_ID = "sample"
SAMPLE_NAME = "sample_usage.csv.gz"
SAMPLE_PATH = Path(__file__).with_name("sample") / SAMPLE_NAME
MAX_FILES = 1_000
PAGE_SIZE = 200
MIN_STEM_CHARACTERS = 4
SHOWN_NAMES = 10

_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
}
_MEDIA_TYPES = {
    "text/csv": "csv",
    "text/tab-separated-values": "csv",
    "application/jsonl": "jsonl",
    "application/x-ndjson": "jsonl",
    "application/json": "json",
    "application/vnd.apache.parquet": "parquet",
    "application/x-parquet": "parquet",
}

BY_ID = "it was asked for by id"
BY_NAME = "it was asked for by name"
REFERRED = "the message refers to it"
NAMED = "its name is in the message"
NEWEST = "it is your newest dataset"
SAMPLE = "you have no dataset of your own: this is the built-in sample"
NEWEST_READABLE = "it is your newest dataset that can be read"
SAMPLE_INSTEAD = "none of your newest datasets can be read: this is the built-in sample"
MAX_SKIPPED = 5
"""Datasets that are passed over because they cannot be read, before the sample takes their place."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset of the user, or the sample. `format` is what its name says; its content decides.

    `generated`: a run made it. Nobody means it unless they say so.
    """

    dataset_id: str
    name: str
    format: str
    size_bytes: int
    create_time: datetime | None
    builtin_sample: bool = False
    generated: bool = False


@dataclass(frozen=True, slots=True)
class Chosen:
    """The dataset of a request, and why it is this one; `note` says what a person should know about the choice.

    `others` are the older ones, newest first, that may take its place when it cannot be read: there are none where it
    was asked for, referred to or named.
    """

    dataset: Dataset
    because: str
    note: str = ""
    others: tuple[Dataset, ...] = ()

    @property
    def by_default(self) -> bool:
        """True when nobody asked for this dataset: another may take its place."""
        return self.because in {NEWEST, NEWEST_READABLE}

    def instead(self, why: str) -> "Chosen":
        """Return what is analysed in place of this one, which cannot be read."""
        note = f"{self.note} {clip(self.dataset.name)} is newer, but cannot be read: {why}".strip()
        if self.others:
            return Chosen(self.others[0], NEWEST_READABLE, note, self.others[1:])
        return Chosen(sample(), SAMPLE_INSTEAD, note)


def format_of(name: str, media_type: str = "") -> str:
    """Return csv, jsonl, json or parquet by name, else by media type; empty for anything else."""
    suffixes = [suffix.casefold() for suffix in Path(name).suffixes]
    if suffixes and suffixes[-1] in {".gz", ".gzip"}:
        suffixes.pop()
    by_name = _SUFFIXES.get(suffixes[-1], "") if suffixes else ""
    return by_name or _MEDIA_TYPES.get(media_type.partition(";")[0].strip().casefold(), "")


def sample() -> Dataset:
    """Return the built-in sample."""
    return Dataset(SAMPLE_ID, SAMPLE_NAME, "csv", SAMPLE_PATH.stat().st_size, None, builtin_sample=True)


def dataset_of(record: FileRecord) -> Dataset:
    """Return the file as a dataset."""
    kind = format_of(record.name, record.media_type)
    generated = record.run_id is not None
    if generated and kind == "json":
        kind = ""  # the full result of a tool, a plan: documents of ours, not rows
    return Dataset(record.file_id, record.name, kind, record.size_bytes, record.create_time, generated=generated)


def is_data(record: FileRecord) -> bool:
    """Return whether answers may be computed from a file: whatever people bring, and datasets that runs make."""
    return record.run_id is None or bool(format_of(record.name, record.media_type))


async def list_files(files: Files, user_id: str) -> list[FileRecord]:
    """Return the user's files, newest first, at most `MAX_FILES`."""
    found: list[FileRecord] = []
    token = ""
    while len(found) < MAX_FILES:
        page = await files.list(user_id, page_size=PAGE_SIZE, page_token=token)
        found += page.items
        token = page.next_page_token
        if not token:
            break
    return found[:MAX_FILES]


async def resolve(files: Files, context: ToolContext, dataset_id: str) -> Chosen:
    """Return the dataset that is meant: asked for → referred to → named in the message → newest → the sample.

    Raises `ToolError` when the one that is asked for or referred to is not there.
    """
    own = [dataset_of(record) for record in await list_files(files, context.user_id)]
    usable = [dataset for dataset in own if dataset.format]
    if dataset_id.strip():
        return await _asked_for(files, context, dataset_id.strip(), own, usable)
    referred = [reference.file_id for reference in context.references if reference.file_id]
    if referred:
        return await _referred(files, context, referred)
    named = _named(context.message, usable)
    if named is not None:
        return Chosen(named, NAMED)
    # What was brought comes before what was generated, which is never taken for a measurement by accident.
    brought = [dataset for dataset in usable if not dataset.generated]
    if not brought:
        return Chosen(sample(), SAMPLE)
    return Chosen(brought[0], NEWEST, others=tuple(brought[1:MAX_SKIPPED]))


async def _asked_for(
    files: Files, context: ToolContext, wanted: str, own: Sequence[Dataset], usable: Sequence[Dataset]
) -> Chosen:
    if wanted.casefold() in {SAMPLE_ID, SAMPLE_NAME} and all(dataset.generated for dataset in usable):
        return Chosen(sample(), SAMPLE)
    for dataset in own:
        if dataset.dataset_id == wanted:
            return Chosen(dataset, BY_ID)
    for dataset in own:
        if dataset.name.casefold() == wanted.casefold():
            return Chosen(dataset, BY_NAME)
    if len(own) >= MAX_FILES:
        try:
            return Chosen(dataset_of(await files.get(context.user_id, wanted)), BY_ID)
        except RecordNotFoundError:
            pass
    if wanted.casefold() in {SAMPLE_ID, SAMPLE_NAME}:
        raise ToolError(f"The built-in sample is only for users without data of their own. {_yours(usable)}")
    raise ToolError(f"There is no dataset {wanted!r}. {_yours(usable)}")


def _yours(usable: Sequence[Dataset]) -> str:
    if not usable:
        return "You have none yet: upload a CSV, JSONL, JSON or Parquet file, also gzipped."
    names = ", ".join(dataset.name for dataset in usable[:SHOWN_NAMES])
    return f"Yours are: {names}{' and others' if len(usable) > SHOWN_NAMES else ''}."


async def _referred(files: Files, context: ToolContext, file_ids: Sequence[str]) -> Chosen:
    records: list[Dataset] = []
    for file_id in file_ids:
        try:
            records.append(dataset_of(await files.get(context.user_id, file_id)))
        except RecordNotFoundError:
            raise ToolError(
                f"The file {file_id} that the message refers to is not there any more. Upload it again."
            ) from None
    usable = [dataset for dataset in records if dataset.format] or records
    if len(usable) == 1:
        return Chosen(usable[0], REFERRED)
    first, *rest = (clip(dataset.name) for dataset in usable)
    shown = ", ".join(rest[:SHOWN_NAMES]) + (" and others" if len(rest) > SHOWN_NAMES else "")
    note = f"One dataset is analysed at a time: this is {first}, the first of those that you refer to, without {shown}."
    return Chosen(usable[0], f"{REFERRED} (the first of {len(usable)})", note)


def _named(message: str, usable: Sequence[Dataset]) -> Dataset | None:
    """Return the dataset whose name, with or without its endings, is in the text; the longest name wins."""
    text = message.casefold()
    found: list[tuple[int, Dataset]] = []
    for dataset in usable:
        name = dataset.name.casefold()
        stem = name.split(".", maxsplit=1)[0]
        # "usage" or "costs" alone are words of the question, not names of files.
        telling = len(stem) >= MIN_STEM_CHARACTERS and re.search(r"[\d_-]", stem)
        for candidate in (name, stem if telling else ""):
            if candidate and re.search(rf"(?<![\w.-]){re.escape(candidate)}(?![\w-])", text):
                found.append((len(candidate), dataset))
                break
    return max(found, key=lambda entry: entry[0])[1] if found else None


async def local_path(files: Files, user_id: str, dataset: Dataset) -> Path:
    """Return where the content is. Raises `ToolError` when it has just been deleted."""
    if dataset.builtin_sample:
        return SAMPLE_PATH
    try:
        return await files.local_path(user_id, dataset.dataset_id)
    except RecordNotFoundError:
        raise ToolError(f"{dataset.name} has been deleted. Upload it again.") from None
