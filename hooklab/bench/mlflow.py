"""Runs copied to MLflow, so that a team's server can take over. MLflow is optional: `pip install hooklab[mlflow]`.

    Records ──export──▶ MLflow runs: parameters, numbers with their steps, tags, and the files as artefacts
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ..errors import RecordError
from .listing import Records
from .record import Record

STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED", "killed": "KILLED", "unknown": "KILLED"}
MOST = 250
"""Characters of a name, and twice as many of a parameter's value, that every MLflow server takes."""


def export(records: Records, tracking_uri: str, experiment: str = "hooklab") -> list[str]:
    """Copy runs that have ended; those that are there already, and those that go on, are left out.

    Args:
        records: The runs.
        tracking_uri: Of a server, a database (`sqlite:///mlflow.db`) or a folder.
        experiment: The MLflow experiment; it is made when it is not there.

    Returns:
        The ids of the new MLflow runs.

    Raises:
        RecordError: MLflow is missing, or refuses.
    """
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise RecordError("exporting to MLflow needs it: pip install hooklab[mlflow]") from error
    try:
        client = MlflowClient(tracking_uri=tracking_uri)
        found = client.get_experiment_by_name(experiment)
        home = found.experiment_id if found is not None else client.create_experiment(experiment)
        return [_copied(client, home, one) for one in records if one.status in STATUS and not _is_there(client, home, one)]
    except MlflowException as error:
        raise RecordError(f"MLflow at {tracking_uri} refuses: {error}") from error


def _is_there(client: Any, home: str, record: Record) -> bool:
    found = client.search_runs([home], f"tags.`hooklab.run` = '{record.id}'", max_results=1)
    return any(one.info.status != "RUNNING" for one in found)


def _copied(client: Any, home: str, record: Record) -> str:
    git = record.environment.get("git") or {}
    tags = {"hooklab.run": record.id, "hooklab.experiment": record.name, "hooklab.version": record.version,
            "hooklab.status": record.status, "mlflow.runName": f"{record.name} {record.id}",
            "mlflow.source.name": record.name}
    tags |= {"mlflow.source.git.commit": git["commit"]} if git.get("commit") else {}
    tags |= {f"hooklab.model.{name}"[:MOST]: mark for name, mark in record.models.items()}
    tags |= {"hooklab.error": record.error[-5000:]} if record.error else {}
    run = client.create_run(home, start_time=int(1000 * record.started), tags=tags).info.run_id
    for name, text in record.arguments.items():
        client.log_param(run, _name(name), text[:2 * MOST])
    if record.seed is not None:
        client.log_param(run, "seed", record.seed)
    moment = int(1000 * (record.started + (record.seconds or 0)))
    for name, values in record.series.items():
        for i, (step, value) in enumerate(values):
            client.log_metric(run, _name(name), value, timestamp=moment, step=i if step is None else step)
    with tempfile.TemporaryDirectory() as place:
        for file, text in (("source.py", record.text), ("output.txt", record.output), ("error.txt", record.error)):
            if text:
                (Path(place) / file).write_text(text, "utf-8")
        client.log_artifacts(run, place)
    for path in sorted(record.folder.iterdir()) if record.folder.is_dir() else []:
        if not path.name.startswith("."):
            client.log_artifact(run, str(path), "figures" if path.suffix == ".png" else "values")
    client.set_terminated(run, STATUS[record.status], end_time=moment)
    return str(run)


def _name(name: str) -> str:
    """A name with nothing that MLflow refuses."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)[:MOST] or "_"
