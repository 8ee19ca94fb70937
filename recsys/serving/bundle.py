"""Open a bundle: a folder that scores raw rows with numpy and onnxruntime, and proves that it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys.errors import BundleError
from recsys.serving.dense import CLOSED, DensePart
from recsys.serving.encode import Vocabulary
from recsys.serving.files import check_files, load_tensors
from recsys.serving.manifest import BundleManifest
from recsys.serving.quantise import Table
from recsys.serving.queries import OUTPUT, QueryEncoder
from recsys.serving.scorer import Scorer
from recsys.serving.selftest import check_selftest


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory.

    >>> Bundle.load("bundle").scorer().score("log.parquet")  # doctest: +SKIP
    """

    folder: Path
    manifest: BundleManifest
    tables: dict[str, Table]
    vocabularies: dict[str, Vocabulary]
    dense: DensePart
    query: DensePart | None = None
    """The query tower of a retrieval model."""

    @classmethod
    def load(cls, folder: str | Path, *, verify: bool = True, threads: int | None = None) -> Bundle:
        """Open a bundle.

        Args:
            folder: that ``recsys export`` wrote.
            verify: check every file's hash and score the self-test's rows again. Without it a
                damaged file may go unnoticed.
            threads: of the dense part; default: as many as the machine has cores.

        Raises:
            BundleError: a file is missing or damaged, the version is unknown, or the self-test's
                scores are not those of the machine that wrote the bundle.
        """
        folder = Path(folder)
        manifest = BundleManifest.load(folder)
        check_files(folder, manifest.files, contents=verify)
        bundle = cls(
            folder,
            manifest,
            {name: _table(folder, manifest, name) for name in manifest.tables},
            {name: _vocabulary(folder, manifest, name) for name in manifest.vocabularies},
            DensePart(folder / manifest.dense, threads),
            None if manifest.towers is None else DensePart(folder / manifest.towers.query, threads, OUTPUT),
        )
        if verify:
            queries = None if bundle.query is None else bundle.query_encoder()
            check_selftest(bundle.scorer(), queries, folder / manifest.selftest.file, manifest.selftest)
        return bundle

    def scorer(self) -> Scorer:
        """A scorer of raw rows."""
        manifest = self.manifest
        return Scorer(
            schema=manifest.schema_,
            features=manifest.features,
            numerics=manifest.numerics,
            vocabularies=self.vocabularies,
            tables=self.tables,
            dense=self.dense,
        )

    def query_encoder(self) -> QueryEncoder:
        """An encoder of raw rows' queries; raises BundleError where the model scores rows alone."""
        towers = self.manifest.towers
        if towers is None or self.query is None:
            raise BundleError(f"{self.folder}: its model scores rows, and has no query tower")
        return query_encoder_of(self.scorer(), self.query, towers.features, towers.dim, towers.interests)


def query_encoder_of(
    scorer: Scorer, query: DensePart, names: Sequence[str], dim: int, interests: int
) -> QueryEncoder:
    """An encoder of the features that a query tower reads, with a scorer's tables and vocabularies."""
    features = [feature for feature in scorer.features if feature.name in names]
    return QueryEncoder(
        schema=scorer.schema.keep(list(names)),
        features=features,
        numerics=scorer.numerics,
        vocabularies=scorer.vocabularies,
        tables=scorer.tables,
        dense=query,
        dim=dim,
        interests=interests,
    )


def _table(folder: Path, manifest: BundleManifest, name: str) -> Table:
    stored = manifest.tables[name]
    path = folder / stored.file
    try:
        return Table.from_arrays(name, stored.dtype, stored.rows, stored.dim, load_tensors(path))
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error


def _vocabulary(folder: Path, manifest: BundleManifest, name: str) -> Vocabulary:
    stored = manifest.vocabularies[name]
    lookups = manifest.plan.vocabularies[name].lookups
    of_value = () if lookups == 1 else (lookups,)
    path = folder if stored.keys is None else folder / stored.keys
    keys, listed = np.empty(0, np.uint64), np.empty((0, *of_value), np.int64)
    if stored.keys is not None:
        keys, listed = _listed(path, of_value)
    special = [np.array(row, np.int64) for row in (stored.missing_row, stored.unseen_row)]
    if any(row.shape != of_value for row in special):
        raise BundleError(
            f"{folder}: vocabulary {name!r} has {lookups} lookups, found missing_row "
            f"{stored.missing_row} and unseen_row {stored.unseen_row}"
        )
    hashed = stored.hashed_by_lookup(lookups)
    if any(not each for each in hashed) or len(hashed) not in (0, lookups):
        raise BundleError(f"{folder}: vocabulary {name!r}: hashed names no rows for each of its lookups")
    ends = [end for each in hashed for end in (each[0], each[-1])]
    rows = np.concatenate([listed.ravel(), *(row.ravel() for row in special), np.array(ends, np.int64)])
    limit = manifest.tables[stored.table].rows
    least = 0 if manifest.gates is None else CLOSED
    if rows.min() < least or rows.max() >= limit:
        raise BundleError(
            f"{path}: table {stored.table!r} has rows {least} to {limit - 1}, "
            f"found {rows.min()} to {rows.max()}"
        )
    return Vocabulary(keys, listed, special[0], special[1], name, hashed)


def _listed(path: Path, of_value: tuple[int, ...]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Keys ``[N]`` and their rows ``[N]`` or ``[N, K]``; raises BundleError for other arrays."""
    arrays = load_tensors(path)
    found = {key: (array.dtype.name, array.shape) for key, array in arrays.items()}
    count = len(arrays["keys"]) if "keys" in arrays else 0
    shape = (count, *of_value)
    expected = [{"keys": ("uint64", (count,)), "rows": (kind, shape)} for kind in ("int32", "int64")]
    if found not in expected:
        named = f"[{', '.join(['N', *map(str, of_value)])}]"
        raise BundleError(f"{path}: expected keys uint64 [N] and rows int32 {named}, found {found}")
    keys = arrays["keys"]
    if count > 1 and not (keys[1:] > keys[:-1]).all():
        raise BundleError(f"{path}: keys are not in strictly rising order")
    return keys, arrays["rows"].astype(np.int64)
