"""Inline SVG: text stays text (Chinese shows in any browser), no outside reference, the same bytes for the same run."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from xinglin.report import words

WIDTH = 7.4  # inches: the text width of a page
MOST_POINTS = 400
ROW = 0.19  # inches of a row in a forest plot
INK, GREY, LIGHT, BLUE, ORANGE = "#1c2430", "#8a929c", "#c9d6e2", "#2f5d8a", "#b4632a"
GOOD, BAD = "#22765a", "#b03a2e"
FROM_ZERO = ("sampler_gap", "finished", "kl_weight")
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "xinglin",
    "text.parse_math": False,
    "font.family": ["sans-serif"],
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "text.color": INK,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
}
Points = list[tuple[float, float]]


def curves(log: Sequence[dict[str, Any]], title: str) -> str:
    """Loss, accuracy and margin where they are, learning rate small. "" where nothing was logged."""
    wanted = [("loss", "损失 loss"), ("accuracy", "准确率 accuracy"), ("margin", "分差 margin"), ("lr", "学习率 lr")]
    panels = [(key, name) for key, name in wanted if points(log, key) or points(log, f"valid_{key}")]
    if not panels:
        return ""
    best = best_step(log)
    with _figure(2.25) as fig:
        ratios = [{"loss": 2.6, "lr": 1.0}.get(key, 1.5) for key, _ in panels]
        axes = fig.subplots(1, len(panels), width_ratios=ratios, squeeze=False)[0]
        fig.subplots_adjust(left=0.055, right=0.995, top=0.88, bottom=0.17, wspace=0.28)
        for ax, (key, name) in zip(axes, panels, strict=True):
            _panel(ax, log, key, name, best)
        return _svg(fig, title)


def _panel(ax: Axes, log: Sequence[dict[str, Any]], key: str, name: str, best: tuple[float, float] | None) -> None:
    train, valid = points(log, key), points(log, f"valid_{key}")
    ax.xaxis.set_major_locator(MaxNLocator(6 if key == "loss" else 3, integer=True))
    ax.set_title(name)
    ax.set_xlabel("步 step", labelpad=1)
    if key == "lr":
        ax.plot(*_xy(train), color=GREY, lw=1)
        ax.set_ylim(0, 1.08 * max(value for _, value in train))
        _few_ticks(ax)
        return
    ax.plot(*_xy(train), color=LIGHT, lw=0.9)
    ax.plot(*_xy(smooth(train)), color=BLUE, label="训练")
    if valid:
        ax.plot(*_xy(valid), color=ORANGE, marker="o", ms=2.6, lw=1, label="验证")
    if key == "loss" and best is not None:
        ax.plot(best[0], best[1], marker="*", ms=9, color=ORANGE, mec="white", mew=0.5, ls="", label="最佳")
    if key == "loss":
        ax.legend(loc="upper right")


def policy(
    log: Sequence[dict[str, Any]], limits: dict[str, tuple[str, float]], stopped_at: float | None, title: str
) -> str:
    """One panel for each thing a policy run is watched by; the health rule's limit where it is near the curve."""
    wanted = [
        *(("score", "得分 score"), ("kl", "KL（nats/答案）"), ("length", "长度 length"), ("entropy", "熵 entropy")),
        *(
            ("ratio", "比率 ratio"),
            ("sampler_gap", "采样偏差 sampler_gap"),
            ("finished", "说完的比例"),
            ("kl_weight", "KL 权重"),
        ),
    ]
    rows = [{**line, "step": line["iteration"]} for line in log if "iteration" in line]
    panels = [(key, name) for key, name in wanted if points(rows, key)]
    if not panels:
        return ""
    num_rows = -(-len(panels) // 4)
    with _figure(1.75 * num_rows) as fig:
        axes = fig.subplots(num_rows, 4, squeeze=False).flatten().tolist()
        fig.subplots_adjust(
            left=0.055, right=0.99, top=1 - 0.17 / num_rows, bottom=0.2 / num_rows, wspace=0.34, hspace=0.62
        )
        for ax, (key, name) in zip(axes, panels, strict=False):
            _policy_panel(ax, rows, key, name, limits.get(key), stopped_at)
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        return _svg(fig, title)


def _policy_panel(
    ax: Axes, rows: list[dict[str, Any]], key: str, name: str, limit: tuple[str, float] | None, stopped_at: float | None
) -> None:
    series = points(rows, key)
    _few_ticks(ax)
    ax.set_title(name)
    ax.set_xlabel("轮 iteration", labelpad=1)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    spread = dict(points(rows, f"{key}_std"))
    if spread:
        low, high = ([value + sign * spread.get(x, 0.0) for x, value in series] for sign in (-1, 1))
        ax.fill_between([x for x, _ in series], low, high, color=LIGHT, alpha=0.6, lw=0)
    ax.plot(*_xy(series), color=BLUE, marker="o", ms=2.4)
    values = [value for _, value in series]
    if key in FROM_ZERO and max(values) > 0:
        ax.set_ylim(0, 1.15 * max(values))
    if len(series) == 1:
        ax.set_xlim(series[0][0] - 1, series[0][0] + 1)
    if limit is not None and abs(limit[1]) <= 2 * max(map(abs, values)):
        ax.axhline(limit[1], color=BAD, lw=0.9, ls=(0, (4, 3)))
    if stopped_at is not None:
        ax.axvline(stopped_at, color=BAD, lw=0.9)


def _few_ticks(ax: Axes) -> None:
    """Four numbers at most, written out: no offset beside the title."""
    ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.4g}")
    )


def reliability(models: Mapping[str, Sequence[dict[str, Any]]], title: str) -> str:
    """How often each reward model is right against how sure it is; on the diagonal it is as right as it is sure."""
    if not models:
        return ""
    num_rows = -(-len(models) // 4)
    with _figure(1.95 * num_rows) as fig:
        axes = fig.subplots(num_rows, 4, squeeze=False).flatten().tolist()
        top, bottom = 1 - 0.15 / num_rows, 0.2 / num_rows
        fig.subplots_adjust(left=0.055, right=0.99, top=top, bottom=bottom, wspace=0.3, hspace=0.6)
        for ax, (name, bins) in zip(axes, models.items(), strict=False):
            ax.plot([0.5, 1], [0.5, 1], color=GREY, lw=0.8, ls=(0, (4, 3)))
            sure = [row["confidence"] for row in bins]
            ax.vlines(sure, [row["low"] for row in bins], [row["high"] for row in bins], color=LIGHT, lw=2.4)
            ax.plot(sure, [row["accuracy"] for row in bins], color=BLUE, marker="o", ms=3)
            ax.set_title(name)
            ax.set_xlabel("模型的把握", labelpad=1)
            ax.set_xlim(0.48, 1.02)
        for ax in axes[len(models) :]:
            ax.set_axis_off()
        return _svg(fig, title)


def overlaid(logs: Mapping[str, Sequence[dict[str, Any]]], title: str) -> str:
    """Validation accuracy and margin, and training accuracy, of several runs in one figure."""
    wanted = [("accuracy", "训练准确率"), ("valid_accuracy", "验证准确率"), ("valid_margin", "验证分差 margin")]
    panels = [(key, name) for key, name in wanted if any(points(log, key) for log in logs.values())]
    if not panels:
        return ""
    with _figure(2.6) as fig:
        axes = fig.subplots(1, len(panels), squeeze=False)[0]
        fig.subplots_adjust(left=0.055, right=0.995, top=0.9, bottom=0.3, wspace=0.24)
        colours = matplotlib.colormaps["viridis"]
        for ax, (key, name) in zip(axes, panels, strict=True):
            ax.set_title(name)
            ax.set_xlabel("步 step", labelpad=1)
            for place, (run, log) in enumerate(logs.items()):
                series = smooth(points(log, key)) if key == "accuracy" else points(log, key)
                ax.plot(*_xy(series), color=colours(place / max(len(logs) - 1, 1) * 0.85), label=run)
        fig.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncols=min(len(logs), 5))
        return _svg(fig, title)


def forest(lines: Sequence[dict[str, Any]], title: str) -> str:
    """Differences with intervals, one part for each unit. Filled: the interval excludes 0."""
    parts: dict[str, list[tuple[dict[str, Any], float]]] = {}
    for line in lines:
        unit, factor = _unit(line)
        if all(words.number(line[key]) is not None for key in ("diff", "low", "high")):
            parts.setdefault(unit, []).append((line, factor))
    if not parts:
        return ""
    tall = sum(_forest_height(len(rows)) for rows in parts.values())
    with _figure(tall) as fig:
        top = tall
        for unit, rows in parts.items():
            place = (0.27, (top - 0.26 - ROW * len(rows)) / tall, 0.72, ROW * len(rows) / tall)
            _forest_part(fig.add_axes(place), rows, f"{title}（{unit}）")
            top -= _forest_height(len(rows))
        return _svg(fig, f"forest {title}")


def _forest_height(num_rows: int) -> float:
    """Inches of a part: its rows, its title above, its axis below."""
    return ROW * num_rows + 0.56


def _forest_part(ax: Axes, rows: list[tuple[dict[str, Any], float]], title: str) -> None:
    ax.set_title(title)
    ax.axvline(0, color=INK, lw=0.7)
    for place, (line, factor) in enumerate(rows):
        color = {True: GOOD, False: BAD}.get(line["better"], GREY)
        low, diff, high = (factor * line[key] for key in ("low", "diff", "high"))
        ax.plot([low, high], [place, place], color=color, lw=1.4, solid_capstyle="butt")
        known = line["better"] is not None
        ax.plot(diff, place, "o", ms=4.6, color=color, mfc=color if known else "white", mew=1)
    names = [f"{line['short']} {line['arrow']}".strip() for line, _ in rows]
    ax.set_yticks(range(len(rows)), names)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x", color="#e6e9ed", lw=0.6)
    ax.set_axisbelow(True)


def _unit(line: dict[str, Any]) -> tuple[str, float]:
    """The unit of a metric's differences, and what to multiply by. Shares and 0-100 scores use the same points."""
    metric = str(line["key"][1])
    if metric in ("bleu", "similarity"):
        return "百分点", 1.0
    if metric == "bits_per_character":
        return "比特/字", 1.0
    if metric == "length":
        return "字", 1.0
    values = [words.number(line[key]) for key in ("a", "b")]
    if all(value is not None and 0 <= value <= 1 for value in values):
        return "百分点", 100.0
    return "量表分或其他单位", 1.0


# --- series ----------------------------------------------------------------------------------------------------------


def points(log: Sequence[dict[str, Any]], key: str) -> Points:
    """(step, value) of every line that has the number, at most `MOST_POINTS` of them."""
    found = [
        (step, value)
        for line in log
        if (step := words.number(line.get("step"))) is not None and (value := words.number(line.get(key))) is not None
    ]
    if len(found) <= MOST_POINTS:
        return found
    every = -(-len(found) // MOST_POINTS)
    return [*found[:-1:every], found[-1]]


def smooth(series: Points) -> Points:
    """Running mean over a twentieth of the series, centred."""
    reach = max(1, len(series) // 40)
    values = [value for _, value in series]
    return [
        (x, sum(part) / len(part))
        for i, (x, _) in enumerate(series)
        if (part := values[max(0, i - reach) : i + reach + 1])
    ]


def best_step(log: Sequence[dict[str, Any]]) -> tuple[float, float] | None:
    """(step, value) of the lowest validation loss."""
    every = [
        (step, value)
        for line in log
        if (step := words.number(line.get("step"))) is not None
        and (value := words.number(line.get("valid_loss"))) is not None
    ]
    return min(every, key=lambda point: point[1], default=None)


def _xy(series: Points) -> tuple[list[float], list[float]]:
    return [x for x, _ in series], [y for _, y in series]


# --- SVG -------------------------------------------------------------------------------------------------------------


@contextmanager
def _figure(height: float) -> Iterator[Figure]:
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the browser's fonts draw the text, not ours
        yield Figure(figsize=(WIDTH, height))


def _svg(fig: Figure, title: str) -> Markup:
    """The figure's <svg> alone, ids made its own: several stand in one page."""
    buffer = io.StringIO()
    fig.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    body = buffer.getvalue()
    body = body[body.index("<svg") :]
    body = re.sub(r' xmlns(:xlink)?="[^"]*"', "", body)
    prefix = "f" + hashlib.sha256((title + body).encode()).hexdigest()[:8] + "-"
    body = re.sub(r'\bid="', f'id="{prefix}', body)
    body = re.sub(r'(xlink:href="|url\()#', rf"\g<1>#{prefix}", body)
    body = re.sub(r"font-family: [^;\"]*;", "", body)  # the page's own fonts know Chinese
    return Markup(body.replace("<svg ", f'<svg role="img" aria-label="{Markup.escape(title)}" ', 1))
