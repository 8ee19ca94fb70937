"""What the command line shows when a verb is done: tables on stdout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from rich.console import Console
from rich.table import Table

from recsys.place import FOLDERS, Place
from recsys.progress import size
from recsys.results import (
    load_bundle,
    load_evaluation,
    load_plan,
    load_references,
    load_retrieval,
    report_of,
    tables_of,
)

if TYPE_CHECKING:
    import polars as pl

    from recsys.chain import Finished
    from recsys.data.dataset import Dataset
    from recsys.doctor import Diagnosis
    from recsys.embeddings.plan import Plan
    from recsys.evaluation import Comparison, Evaluation
    from recsys.evaluation.retrieval_metrics import RetrievalEvaluation
    from recsys.explanation import Explanation
    from recsys.retrieval.index import Found, Index
    from recsys.schema import Schema
    from recsys.seeds import SeedRuns
    from recsys.serving.bundle import Bundle
    from recsys.serving.manifest import BundleGates, BundleManifest
    from recsys.tuning.trial import Tuning

_PLAIN_WIDTH = 120
_MARKS = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "wrong": "[red]wrong[/]"}


def _console() -> Console:
    """Where results go; wide enough for whole lines where nobody watches."""
    console = Console()
    return console if console.is_terminal else Console(width=_PLAIN_WIDTH)


def _table(*columns: str, title: str | None = None) -> Table:
    """An open table; a column that begins with ``#`` holds numbers."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.lstrip("#"), justify="right" if column.startswith("#") else "left")
    return table


def show_schema(schema: Schema, output: Path | None) -> None:
    """The schema itself where it was not written anywhere, else what was found per column."""
    if output is None:
        text = yaml.safe_dump(schema.to_dict(), sort_keys=False, allow_unicode=True, width=100)
        Console(soft_wrap=True, highlight=False, markup=False).print(text, end="")
        return
    table = _table("column", "kind", "type", "roles", "#distinct", "#missing", "#longest")
    for name, column in schema.columns.items():
        facts = column.facts
        shown: tuple[str, ...] = ()
        if facts is not None:
            about = "" if facts.distinct_is_exact else "~"
            longest = "" if facts.length_max is None else f"{facts.length_max:,}"
            shown = (f"{about}{facts.distinct:,}", f"{facts.missing:.1%}", longest)
        table.add_row(name, column.kind, column.type, ", ".join(column.roles) or "ignored", *shown)
    console = _console()
    console.print(table)
    for note in schema.notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"written to {output}", highlight=False)


def show_dataset(dataset: Dataset) -> None:
    """Rows per part and the size of every vocabulary."""
    manifest = dataset.manifest
    parts = _table("part", "#rows", "#clicks")
    for part, rows in manifest.rows.items():
        parts.add_row(part, f"{rows:,}", f"{manifest.positives.get(part, 0):,}")
    vocabularies = _table("vocabulary", "#ids", "type", "columns")
    for name, info in manifest.vocabularies.items():
        vocabularies.add_row(name, f"{info.size:,}", info.type, ", ".join(info.columns))
    console = _console()
    console.print(parts, "", vocabularies)
    for treatment, count in manifest.treatments.items():
        console.print(f"{count:,} values: {treatment}", highlight=False, markup=False)
    console.print(f"written to {dataset.folder}", highlight=False)


def show_plan(plan: Plan) -> None:
    """Every table with its bytes, what values share, and the bytes of each part."""
    from recsys.embeddings.accounting import bytes_by_part

    table = _table("table", "#rows", "#dim", "mode", "path", "#bytes", "served as")
    modes = {info.table: info.mode for info in plan.vocabularies.values()}
    for name, entry in plan.tables.items():
        table.add_row(
            name,
            f"{entry.rows:,}",
            str(entry.dim),
            modes[name],
            entry.path,
            size(4 * entry.rows * entry.dim),
            entry.serve_dtype,
        )
    table.add_section()
    table.add_row("all", "", "", "", "", size(plan.train_bytes), "")
    console = _console()
    console.print(table)
    _show_collisions(plan, console)
    parts = bytes_by_part(plan)
    served = ", ".join(f"{name} {size(parts[part])}" for part, name in _SERVED.items())
    total = size(sum(parts[part] for part in _SERVED))
    console.print(f"in the bundle: {served}; {total} together", highlight=False)


_SERVED = {"tables served": "tables", "keys": "keys of values", "row maps": "their rows"}


def _show_collisions(plan: Plan, console: Console) -> None:
    """How crowded the tables are whose rows several values share."""
    from recsys.embeddings.accounting import collisions

    lines = [line for line in collisions(plan).iter_rows(named=True) if line["mode"] != "full"]
    if not lines:
        return
    names = ("vocabulary", "mode", "#values", "#lookups", "#width", "#rows per value")
    table = _table(*names, "#within", "#alike", "#between")
    for line in lines:
        table.add_row(
            line["vocabulary"],
            line["mode"],
            f"{line['values']:,}",
            str(line["lookups"]),
            str(line["width"]),
            f"{line['rows_per_value']:.3g}",
            *(_pairs(line[name]) for name in ("within", "alike", "between")),
        )
    console.print("", table)
    console.print(
        "expected pairs of values in one row: within a vocabulary, alike in every lookup, and between "
        "vocabularies\n",
        highlight=False,
    )


def _pairs(count: float) -> str:
    return f"{count:,.0f}" if count >= 10 else f"{count:.2g}"


def show_evaluation(evaluation: Evaluation) -> None:
    """Metrics of all rows, why one is missing, and the slices."""
    table = _table("metric", "#value", "")
    for name, value in evaluation.overall.items():
        table.add_row(name, _number(value), evaluation.reasons.get(name, ""))
    console = _console()
    console.print(table)
    for note in evaluation.notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    if not evaluation.slices.is_empty():
        names = ("column", "value", "#rows", "#ctr", "#auc", "#gauc", "#logloss", "#ne", "#calibration")
        slices = _table(*names)
        for row in evaluation.slices.iter_rows(named=True):
            first = (row["column"], str(row["value"]), f"{row['rows']:,}")
            slices.add_row(*first, *(_number(row[name.lstrip("#")]) for name in names[3:]))
        console.print("", slices)


def show_comparison(comparison: Comparison) -> None:
    """Both values of every metric, the difference with its interval, and the outcome in a sentence."""
    table = _table("metric", "#A", "#B", "#B - A", "#95 % from", "#to", "#p", "by")
    for found in comparison.differences.values():
        numbers = (_number(value) for value in (found.first, found.second))
        signed = (f"{value:+.5f}" for value in (found.difference, found.low, found.high))
        chance = "<0.0001" if found.p_value < 1e-4 else f"{found.p_value:.4f}"
        table.add_row(found.metric, *numbers, *signed, chance, found.method)
    console = _console()
    for letter, name in zip("AB", comparison.names, strict=True):
        console.print(f"{letter} = {name}", highlight=False, markup=False, soft_wrap=True)
    rows = f"{comparison.rows:,} rows, {comparison.positives:,} clicks"
    console.print(rows, "", table, "", sep="\n", highlight=False)
    for metric, reason in comparison.reasons.items():
        console.print(f"no {metric}: {reason}", highlight=False, markup=False, soft_wrap=True)
    for note in comparison.notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    console.print(comparison.sentence, highlight=False, markup=False, soft_wrap=True)


def show_scores(scored: pl.DataFrame, output: Path | None, most: int = 10) -> None:
    """The first rows, and where all of them lie."""
    table = _table(*scored.columns)
    for row in scored.head(most).iter_rows():
        table.add_row(*(f"{value:.6f}" if isinstance(value, float) else str(value) for value in row))
    console = _console()
    console.print(table)
    where = f", written to {output}" if output is not None else "; --output keeps them"
    console.print(f"{len(scored):,} rows scored{where}", highlight=False)


def show_explanation(found: Explanation, most: int = 10) -> None:
    """The pairs of fields with the most attention, or the weights of the newest events."""
    console = _console()
    if found.fields:
        from recsys.report.attention_report import strongest_pairs

        mean = found.mean_map()
        table = _table("from", "to", "#attention", "#times an even share")
        for looking, seen in strongest_pairs(mean, most):
            weight = float(mean[looking, seen])
            pair = (found.fields[looking], found.fields[seen])
            table.add_row(*pair, f"{weight:.1%}", f"{weight * len(found.fields):.2f}")
    else:
        table = _table("history", "#position", "#events", "#mean weight", "#deviation")
        for row in found.average.filter(found.average["position"] <= most).iter_rows(named=True):
            numbers = (_number(row[name]) for name in ("position", "events", "weight", "deviation"))
            table.add_row(row["history"], *numbers)
    console.print(table)
    console.print(
        f"{found.rows:,} rows looked at, written to {found.folder}", highlight=False, soft_wrap=True
    )


def show_bundle(bundle: Bundle) -> None:
    """Tables, bytes, and what quantisation and pruning cost."""
    manifest = bundle.manifest
    table = _table("table", "#rows", "#dim", "type", "#bytes", "#largest error")
    for name, entry in manifest.tables.items():
        shown = (
            f"{entry.rows:,}",
            str(entry.dim),
            entry.dtype,
            size(entry.bytes),
            f"{entry.max_error:.2g}",
        )
        table.add_row(name, *shown)
    console = _console()
    console.print(table)
    change = {"quantisation": "float → stored", "pruning": "unpruned → pruned"}
    for what, rows, before, after in _costs(manifest):
        text = f"{before:.6f} → {after:.6f} ({after - before:+.6f})"
        console.print(f"AUC of {rows:,} held-out rows, {change[what]}: {text}", highlight=False)
    if manifest.gates is not None:
        _show_gates(manifest.gates, console)
    console.print(f"{size(manifest.bytes['total'])} written to {bundle.folder}", highlight=False)


def _costs(manifest: BundleManifest) -> list[tuple[str, int, float, float]]:
    """What made the bundle smaller, held-out rows it was measured on, and their AUC before and after."""
    found = []
    if (stored := manifest.quantisation) is not None:
        found.append(("quantisation", stored.rows, stored.auc_float, stored.auc_quantised))
    if (cut := manifest.pruning) is not None:
        found.append(("pruning", cut.rows, cut.auc_unpruned, cut.auc_pruned))
    return found


def _show_gates(gates: BundleGates, console: Console) -> None:
    """How many values of each vocabulary are open, and what the closed ones would have taken."""
    table = _table("vocabulary", "#values", "#closed", "#kept")
    for name, each in gates.vocabularies.items():
        kept = 1 - each.closed / each.values
        table.add_row(name, f"{each.values:,}", f"{each.closed:,}", f"{kept:.1%}")
    console.print("", table, _of_gates(gates), "", sep="\n", highlight=False)


def _of_gates(gates: BundleGates) -> str:
    kept = f"{gates.kept_share:.1%} of values kept"
    if gates.bytes < 0:
        grown = size(-gates.bytes)
        return f"{kept}; the bundle grew by {grown}, as open values must be listed: plan with unseen: own"
    return f"{kept}; what left would take {size(gates.bytes)}"


def _number(value: float | int | None) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.5f}"


def show_diagnosis(diagnosis: Diagnosis) -> None:
    """What ``doctor`` found, what is wrong with what to do about it."""
    table = _table("", "", "", "")
    for check in diagnosis.checks:
        table.add_row(_MARKS[check.state], check.name, check.found, check.advice)
    table.show_header = False
    console = _console()
    console.print(table)
    console.print(diagnosis.verdict, highlight=False, soft_wrap=True)


def show_run(finished: Finished) -> None:
    """Stages with seconds and rows per second; metrics, bytes and places once the chain is through."""
    if not finished.outcomes:
        return
    table = _table("stage", "", "#seconds", "#rows/s")
    for outcome in (*finished.outcomes, *finished.further):
        speed = outcome.rows_per_second
        shown = f"{speed:,.0f}" if speed else ""
        table.add_row(outcome.stage, outcome.state, f"{outcome.seconds:.1f}", shown)
    every = (*finished.outcomes, *finished.further)
    total = sum(outcome.seconds for outcome in every if outcome.state == "made")
    table.add_section()
    table.add_row("all", "this time", f"{total:.1f}", "")
    console = _console()
    console.print("", table)
    place = Place(finished.config)
    plan = load_plan(place) if finished.outcomes[-1].stage == "plan" else None
    if plan is not None:
        console.print()
        show_plan(plan)
    if finished.outcomes[-1].stage in ("evaluate", "export", "index"):
        console.print("", _quality(place))
        _show_bytes(place, console)
    if finished.seeds is not None:
        _show_seeds(finished.seeds, console)
    _show_places(place, console)


def _show_seeds(seeds: SeedRuns, console: Console) -> None:
    """Every seed, then mean and standard deviation."""
    shown = ("auc", "gauc", "logloss", "recall", "ndcg")
    measured = [(part, metric) for part, metric in seeds.measured if metric in shown]
    table = _table("seed", *(f"#{part} {metric}" for part, metric in measured))
    for run in seeds.runs:
        values = (getattr(run, part).get(metric) for part, metric in measured)
        table.add_row(str(run.seed), *(_number(value) for value in values))
    table.add_section()
    spreads = [seeds.spread(part, metric) for part, metric in measured]
    table.add_row("mean", *(_number(found.mean if found else None) for found in spreads))
    table.add_row("± sd", *(_number(found.sd if found else None) for found in spreads))
    console.print("", table)
    first = seeds.runs[0]
    text = f"what comes after training uses seed {first.seed}, the first ({first.folder})"
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def show_tuning(found: Tuning, most: int = 20) -> None:
    """The best trials with their settings, and where the best ones are written."""
    table = _table("#trial", "", f"#{found.monitor}", "#evaluations", "#seconds", *found.paths)
    for trial in found.ranked[:most]:
        values = (str(value) for value in trial.values.values())
        shown = (_number(found.shown(trial.score)), str(trial.evaluations), f"{trial.seconds:.1f}")
        table.add_row(str(trial.number), trial.state, *shown, *values)
    console = _console()
    console.print("", table)
    if len(found.trials) > most:
        console.print(
            f"and {len(found.trials) - most} more in {found.folder}", highlight=False, markup=False
        )
    for trial in found.trials:
        if trial.state == "failed":
            console.print(
                f"trial {trial.number} failed: {trial.reason}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
    for name, path in (("best", found.best_file), ("report", found.folder / "tune.html")):
        if path.exists():
            console.print(f"{name:<9} {path}", highlight=False, markup=False, soft_wrap=True)


def _quality(place: Place) -> Table:
    """The model beside what can be reached, where that is known."""
    retrieval = load_retrieval(place)
    if retrieval is not None:
        return _ranked(retrieval)
    table = _table("test rows", "#AUC", "#GAUC", "#logloss", "#calibration")
    evaluation = load_evaluation(place)
    if evaluation is not None:
        overall = evaluation.overall
        shown = (_number(overall[name]) for name in ("auc", "gauc", "logloss", "calibration"))
        table.add_row(place.config.model.name, *shown)
    for name, metrics in load_references(place.folder("evaluate")).items():
        table.add_row(name, _number(metrics.get("auc")), "", _number(metrics.get("logloss")), "")
    return table


def _ranked(found: RetrievalEvaluation) -> Table:
    """Recall and NDCG of the whole catalogue, and of its head and tail apart."""
    table = _table("test rows", "#k", "#queries", "#recall", "#NDCG")
    for row in found.slices.iter_rows(named=True):
        numbers = (_number(row[name]) for name in ("recall", "ndcg"))
        table.add_row(row["items"], str(row["k"]), f"{row['queries']:,}", *numbers)
    return table


def _show_bytes(place: Place, console: Console) -> None:
    bundle = load_bundle(place)
    plan = tables_of(place, bundle)
    if plan is None:
        return
    console.print(f"\ntables in training  {size(plan.train_bytes)}", highlight=False)
    if bundle is None:
        return
    types = ", ".join(sorted({table.dtype for table in bundle.tables.values()}))
    console.print(f"tables in bundle    {size(bundle.bytes['tables'])} ({types})", highlight=False)
    for what, rows, before, after in _costs(bundle):
        text = f"AUC {before:.5f} → {after:.5f} on {rows:,} held-out rows"
        console.print(f"{what:20}{text}", highlight=False)
    if bundle.gates is not None:
        console.print(f"gates               {_of_gates(bundle.gates)}", highlight=False)


def _show_places(place: Place, console: Console) -> None:
    """Where everything lies."""
    found = {stage: place.folder(stage) for stage in FOLDERS} | {"report": report_of(place)}
    console.print()
    for name, path in found.items():
        if path.exists():
            console.print(f"{name:<9} {path}", highlight=False, markup=False, soft_wrap=True)


def show_index(index: Index) -> None:
    """What an index holds, and what it reached when it was built."""
    manifest = index.manifest
    coarse, measured = manifest.coarse, manifest.measured
    table = _table("", "")
    table.add_row(
        "items", f"{len(index):,} × {manifest.dense.dim} {manifest.dense.dtype}, {manifest.metric}"
    )
    if coarse is None:
        table.add_row("search", "exact")
    else:
        table.add_row(
            "search",
            f"codes of {coarse.code_bytes} bytes, {coarse.probes} of {coarse.lists} lists, "
            f"{coarse.candidates} candidates",
        )
        table.add_row("codebooks", coarse.codebooks)
    if measured is not None:
        origin = "given queries" if measured.queries_from == "given" else "items as queries"
        table.add_row(f"recall@{measured.k}", f"{measured.recall:.4f} ({measured.queries} {origin})")
        table.add_row(
            "one query", f"{measured.milliseconds:.2f} ms, exact {measured.exact_milliseconds:.2f} ms"
        )
        table.add_row("memory", f"{measured.memory_bytes_per_item:.1f} bytes per item")
    version = "+".join(part[:12] for part in index.version.split("+"))  # base, and what changed since
    table.add_row("version", version)
    table.add_row("written to", str(index.folder))
    _console().print(table)


def show_found(found: Found) -> None:
    """The answers to one query."""
    frame = found.frame().drop("query")
    table = _table("#rank", frame.columns[1], "#score")
    for rank, item, score in frame.iter_rows():
        table.add_row(str(rank), str(item), f"{score:.6g}")
    _console().print(table)
