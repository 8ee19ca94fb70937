"""The command ``recsys``: a verb per stage, no logic.

Whatever a verb needs is imported inside it, so that ``--help`` and the light verbs never wait for torch.
Results go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 the run failed, 2 wrong usage
or run file, 130 interrupted.
"""

from __future__ import annotations

import gc
import logging
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperGroup

from recsys import __version__, cli_learning, cli_retrieval, ranks
from recsys.cli_explain import explain
from recsys.cli_steps import begin as _begin
from recsys.cli_steps import stage_of as _stage_of
from recsys.errors import RecsysError
from recsys.flags import (
    DataRoot,
    Label,
    Log,
    Output,
    Overrides,
    RunFile,
    SchemaFile,
    Seeds,
    Split,
    is_run_file,
    names,
    needed,
    refuse,
    refuse_with_data,
    schema_file,
    split_rule,
)
from recsys.progress import Silent, Terminal, reporting

if TYPE_CHECKING:
    import polars as pl
    from typer import Context


_NOISY = ("torch.fx._symbolic_trace", "torch.onnx._internal.exporter._registration")
"""Loggers that warn on import of what recsys does not use."""


class Verbs(TyperGroup):
    """Turns every refusal into one message and an exit code."""

    def invoke(self, ctx: Context) -> Any:  # type: ignore[override]
        reporter = Terminal() if ranks.rank() == 0 else Silent()
        try:
            with reporting(reporter):
                return super().invoke(ctx)
        except (RecsysError, KeyboardInterrupt, ModuleNotFoundError, OSError) as error:
            code, message = _refusal(error)
            if ctx.params.get("debug"):
                traceback.print_exc()
        typer.echo(message, err=True)
        raise typer.Exit(code)


def _refusal(error: BaseException) -> tuple[int, str]:
    """Exit code and message of what stopped a verb; raises again what is a fault of recsys itself."""
    if isinstance(error, KeyboardInterrupt):
        return 130, "recsys: interrupted"
    if isinstance(error, RecsysError):
        return error.exit_code, f"error: {error}"
    if isinstance(error, ModuleNotFoundError) and not (error.name or "recsys").startswith("recsys"):
        return 1, f"error: this needs the package {error.name!r}, which is missing; see 'recsys doctor'"
    if isinstance(error, OSError) and error.strerror and not isinstance(error, BrokenPipeError):
        named = f"{error.filename}: " if error.filename else ""
        return 1, f"error: {named}{error.strerror}"
    raise error


app = typer.Typer(
    name="recsys",
    cls=Verbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From Parquet click logs to a served recommender.",
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"recsys {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of errors.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and stop.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    pass


@app.command()
def infer(
    data: Log,
    label: Label = None,
    group: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of GAUC's groups.")] = None,
    weight: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of weights.")] = None,
    timestamp: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of event times.")] = None,
    ignore: Annotated[list[str] | None, typer.Option(metavar="A,B", help="Columns to leave out.")] = None,
    output: Output = None,
    root: DataRoot = None,
    overrides: Overrides = None,
) -> None:
    """Find what each column is, and write a schema that a person can edit."""
    _begin("infer", data)
    if is_run_file(data):
        refuse(label=label, group=group, weight=weight, timestamp=timestamp, ignore=ignore)
        return _stage_of(data, "infer", root, output, overrides)
    refuse_with_data(root, overrides)
    from recsys import summary
    from recsys.features.infer import infer as find

    schema = find(
        data,
        label=label,
        group=group,
        weight=weight,
        timestamp=timestamp,
        ignore=names(ignore),
        output=output,
    )
    summary.show_schema(schema, output)
    return None


@app.command()
def rank(
    data: Log,
    schema: SchemaFile = None,
    label: Label = None,
    split: Split = None,
    keep: Annotated[int | None, typer.Option(min=1, help="Mark this many best features as kept.")] = None,
    keep_until_loss: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Keep the fewest that lose at most this share.")
    ] = None,
    size: Annotated[
        str | None, typer.Option("--bytes", help="Keep the best whose tables fit, such as 8MB.")
    ] = None,
    score: Annotated[str | None, typer.Option(help="corrected, mi, adjusted or outrank.")] = None,
    order: Annotated[int | None, typer.Option(help="Columns looked at together at most: 1, 2, 3.")] = None,
    combine: Annotated[
        int | None, typer.Option(min=0, help="Name this many combinations to be made columns.")
    ] = None,
    given: Annotated[
        list[str] | None, typer.Option(metavar="A,B", help="Columns that the model already has.")
    ] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Rows that pairs are counted on.")] = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no report.html.")] = False,
    output: Output = None,
    root: DataRoot = None,
    overrides: Overrides = None,
) -> None:
    """Rank columns by what they tell about the label, beyond what chance would."""
    _begin("rank", data)
    named = {
        "keep": keep,
        "keep_until_loss": keep_until_loss,
        "bytes": size,
        "score": score,
        "order": order,
        "combine": combine,
        "given": names(given) or None,
        "sample": sample,
        "report": False if no_report else None,
    }
    stated = {name: value for name, value in named.items() if value is not None}
    if is_run_file(data):
        refuse(schema=schema, label=label, split=split, no_report=no_report, **stated)
        return _stage_of(data, "rank", root, output, overrides)
    refuse_with_data(root, overrides)
    rule = split_rule(split)
    gc.disable()  # all that is imported stays; to look for garbage in it takes a tenth of a short ranking
    from recsys.config import RankSettings
    from recsys.ranking.rank import rank as find
    from recsys.ranking.shown import lines_of

    gc.freeze()
    gc.enable()
    settings = RankSettings.parse(**stated)
    ranking = find(data, schema_file(schema), label=label, split=rule, settings=settings, output=output)
    typer.echo("\n".join(lines_of(ranking, output)))
    return None


@app.command()
def prepare(
    data: Log,
    schema: SchemaFile = None,
    split: Split = None,
    min_count: Annotated[int, typer.Option(min=1, help="Rarer values become the unseen value.")] = 1,
    ranking: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep what 'recsys rank' kept there, and cross what it combined."),
    ] = None,
    output: Output = None,
    root: DataRoot = None,
    overrides: Overrides = None,
) -> None:
    """Encode a log: vocabularies and scales from train rows, ids for every row."""
    _begin("prepare", data)
    if is_run_file(data):
        asked_min_count = None if min_count == 1 else min_count
        refuse(schema=schema, split=split, min_count=asked_min_count, ranking=ranking)
        return _stage_of(data, "prepare", root, output, overrides)
    refuse_with_data(root, overrides)
    rule = split_rule(split)
    schema, output = needed("--schema", schema_file(schema)), needed("--output", output)
    from recsys import summary
    from recsys.features.prepare import prepare as encode
    from recsys.ranking.ranking import Ranking

    chosen = None if ranking is None else Ranking.load(ranking)
    dataset = encode(
        data,
        schema,
        output,
        split=rule,
        keep=None if chosen is None else chosen.kept,
        combinations=() if chosen is None else chosen.combinations,
        min_count=min_count,
    )
    summary.show_dataset(dataset)
    return None


@app.command()
def plan(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="Prepared dataset; or a run file (.yaml).")
    ],
    size: Annotated[str | None, typer.Option("--bytes", help="Bytes for all tables, such as 8MB.")] = None,
    embedding_dim: Annotated[int, typer.Option(min=1, help="Width of the vectors.")] = 16,
    mode: Annotated[str | None, typer.Option(help="auto, best, full, hash, unified, adaptive, ...")] = None,
    lookups: Annotated[
        int | None, typer.Option(min=1, help="Rows that make a vector where values share rows.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model, where it fixes the width (lr).")] = None,
    grow: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Enlarge the plan of an earlier run; see train --warm-start."),
    ] = None,
    ranking: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="What 'recsys rank' found: rows go where most is told."),
    ] = None,
    output: Output = None,
    root: DataRoot = None,
    overrides: Overrides = None,
) -> None:
    """Solve the rows of every table from the bytes one can afford."""
    _begin("plan", dataset)
    if is_run_file(dataset):
        refuse(bytes=size, mode=mode, lookups=lookups, model=model, ranking=ranking)
        named = [] if grow is None else [f"plan.grow={grow}"]
        return _stage_of(dataset, "plan", root, output, [*(overrides or ()), *named])
    refuse_with_data(root, overrides)
    from recsys import summary
    from recsys.config import PlanSettings
    from recsys.embeddings.planner import plan as solve

    settings = PlanSettings.parse(
        bytes=size,
        embedding_dim=embedding_dim,
        mode=mode or ("auto" if size is None else "best"),
        grow=grow,
        **({} if lookups is None else {"lookups": lookups}),
    )
    told = None
    if ranking is not None:
        from recsys.ranking.ranking import Ranking

        told = Ranking.load(ranking).told
    made = solve(dataset, model_name=model, settings=settings, output=output, told=told)
    summary.show_plan(made)
    return None


app.command()(cli_learning.train)
app.command()(cli_learning.tune)


@app.command()
def evaluate(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Parquet of labels and scores; or a run file (.yaml).")
    ],
    by: Annotated[
        list[str] | None, typer.Option(metavar="A,B", help="Columns whose values get their own metrics.")
    ] = None,
    label: Label = None,
    score: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of scores.")] = None,
    group: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of GAUC's groups.")] = None,
    weight: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of weights.")] = None,
    logits: Annotated[bool, typer.Option("--logits", help="Scores are log-odds.")] = False,
    output: Output = None,
    root: DataRoot = None,
    overrides: Overrides = None,
) -> None:
    """Exact AUC, GAUC, logloss, NE and calibration, whole and by slices."""
    _begin("evaluate", data)
    if is_run_file(data):
        refuse(label=label, score=score, group=group, weight=weight, logits=logits)
        named = [f"evaluate.by=[{','.join(by)}]"] if by else []
        return _stage_of(data, "evaluate", root, output, [*(overrides or ()), *named])
    from recsys import summary
    from recsys.evaluation import evaluate as measure

    refuse_with_data(root, overrides)
    evaluation = measure(
        data,
        label=label or "label",
        score=score or "score",
        group=group,
        weight=weight,
        by=names(by),
        scores_are="logits" if logits else "probabilities",
        output=output,
    )
    summary.show_evaluation(evaluation)
    return None


@app.command()
def compare(
    first: Annotated[
        str, typer.Argument(metavar="FIRST", help="Run folder; or Parquet of labels and scores.")
    ],
    second: Annotated[str, typer.Argument(metavar="SECOND", help="Another, of the same rows.")],
    label: Label = None,
    score: Annotated[
        list[str] | None, typer.Option(metavar="A,B", help="Column of scores, or one for each table.")
    ] = None,
    group: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of GAUC's groups.")] = None,
    key: Annotated[
        list[str] | None, typer.Option(metavar="A,B", help="Columns that match the rows of the tables.")
    ] = None,
    logits: Annotated[bool, typer.Option("--logits", help="Scores are log-odds.")] = False,
    resamples: Annotated[int, typer.Option(min=100, help="Draws of the bootstrap.")] = 2_000,
    bootstrap_auc: Annotated[bool, typer.Option("--bootstrap-auc", help="Bootstrap the AUC too.")] = False,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="JSON file to write.")] = None,
) -> None:
    """Say whether one of two runs is better, or chance could make the difference."""
    _begin("compare", f"{first} {second}")
    from recsys import summary
    from recsys.comparison import compare as measure

    comparison = measure(
        first,
        second,
        label=label,
        score=names(score) or None,
        group=group,
        key=names(key) or None,
        scores_are="logits" if logits else "probabilities",
        resamples=resamples,
        bootstrap_auc=bootstrap_auc,
    )
    if output is not None:
        comparison.save(output)
    summary.show_comparison(comparison)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Bundle folder, or run folder.")],
    data: Annotated[str, typer.Argument(metavar="DATA", help="Parquet file, folder, glob or CSV file.")],
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Parquet file to write.")] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="A,B", help="Columns to stand beside the score; '*' keeps all."),
    ] = None,
    score_name: Annotated[str, typer.Option(metavar="NAME", help="Name of the score's column.")] = "score",
) -> None:
    """Score raw rows, from a bundle or from a run's best checkpoint."""
    _begin("predict", data)
    from recsys import summary
    from recsys.prediction import predict as score

    kept = None if keep is None else names(keep)
    scored = score(model, data, output, keep=kept, score_name=score_name)
    summary.show_scores(cast("pl.DataFrame", scored), output)


app.command()(explain)


@app.command()
def export(
    source: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder; or a run file (.yaml).")],
    dtype: Annotated[
        str | None, typer.Option(help="float32, float16, int8 or int4, for every table.")
    ] = None,
    embeddings: Annotated[
        list[str] | None,
        typer.Option(metavar="A,B", help="Features whose vectors are also written, with raw ids."),
    ] = None,
    prune: Annotated[
        float,
        typer.Option(metavar="SHARE", help="Share of values to drop, smallest vectors first."),
    ] = 0.0,
    output: Output = None,
    root: DataRoot = None,
    overrides: Overrides = None,
) -> None:
    """Write a trained run as a bundle that is served without torch."""
    _begin("export", str(source))
    from recsys.doctor import require_training

    require_training()
    if is_run_file(str(source)):
        named = [f"export.dtype={dtype}"] if dtype else []
        named += [f"export.embeddings=[{','.join(embeddings)}]"] if embeddings else []
        named += [f"export.prune={prune}"] if prune else []
        return _stage_of(str(source), "export", root, output, [*(overrides or ()), *named])
    refuse_with_data(root, overrides)
    output = needed("--output", output)
    from recsys import summary
    from recsys.config import ExportSettings
    from recsys.training.export import export as write

    settings = ExportSettings.parse(dtype=dtype, embeddings=names(embeddings), prune=prune)
    summary.show_bundle(write(source, output, **dict(settings)))
    return None


app.command()(cli_retrieval.index)
app.command()(cli_retrieval.search)


@app.command()
def run(
    file: RunFile,
    root: DataRoot = None,
    output: Output = None,
    overrides: Overrides = None,
    force: Annotated[
        list[str] | None, typer.Option(metavar="STAGE", help="Redo a stage whatever its state; repeatable.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="Last stage to do.")] = None,
    seeds: Seeds = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print every setting, defaults included, and stop.")
    ] = False,
) -> None:
    """Carry a log to a bundle, redoing only stages that are stale."""
    if print_config:
        from recsys.config import load_config
        from recsys.reference import as_yaml

        config = load_config(file, data=root, output=output, overrides=overrides or ())
        typer.echo(as_yaml(config), nl=False)
        return
    _begin("run", str(file))
    from recsys import chain, summary

    finished = chain.run(
        file,
        data=root,
        output=output,
        overrides=overrides or (),
        force=force or (),
        until=until,
        seeds=seeds,
    )
    summary.show_run(finished)


@app.command()
def synth(
    settings: Annotated[Path, typer.Argument(metavar="SETTINGS", help="Settings (YAML), as in data/.")],
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Folder to write to.")],
    rows: Annotated[
        int | None, typer.Option(min=1, help="Number of rows, instead of the settings'.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed, instead of the settings'.")] = None,
) -> None:
    """Write a synthetic click log whose best possible AUC is known."""
    _begin("synth", str(settings))
    from recsys.data.synth import synth as write

    typer.echo(str(write(settings, output, rows=rows, seed=seed)))


@app.command()
def doctor(
    deep: Annotated[bool, typer.Option("--deep", help="Also import torch and look one vector up.")] = False,
) -> None:
    """Check versions and the machine; exit code 1 when what is installed does not fit together."""
    _begin("doctor", "")
    from recsys.doctor import doctor as diagnose
    from recsys.summary import show_diagnosis

    diagnosis = diagnose(deep=deep)
    show_diagnosis(diagnosis)
    if not diagnosis.healthy:
        raise typer.Exit(1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; ``--debug`` may stand anywhere."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: nothing half-written stays
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--debug" in given:
        given = ["--debug", *(argument for argument in given if argument != "--debug")]
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        app(given, prog_name="recsys")
    except SystemExit as ended:
        if ranks.world() == 1:
            raise
        ranks.end(ended.code if isinstance(ended.code, int) else int(ended.code is not None))
