"""The loss curve of a training as a picture."""

from __future__ import annotations

from pathlib import Path

from finetune.run_record import RunRecord


def write_loss_plot(path: Path, record: RunRecord) -> None:
    """Draw training and validation loss per step as a PNG at `path` (without a display)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if record.losses:
        axes.plot(*zip(*record.losses, strict=True), label="training", linewidth=1)
    if record.eval_losses:
        axes.plot(*zip(*record.eval_losses, strict=True), label="validation", marker="o", markersize=3)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats per answer token)" if record.trained_ids else "loss (nats per token)")
    axes.set_title(f"{record.recipe.get('name', '')} on {record.base_model}: {record.seconds:.0f} s")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    if record.losses or record.eval_losses:
        axes.legend()
    figure.savefig(path, dpi=110)
