"""The page itself: an upload, a threshold, the picture, counts, and a download."""

import html
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_dense.errors import InputError

from .predictions import Count, Outcome, Predictions

if TYPE_CHECKING:
    import gradio as gr

LARGEST = 500  # MB of an upload
MEDIA = ["image", "video"]
# Fonts of the system: the page loads nothing from elsewhere.
FONTS = ("system-ui", "sans-serif")
CODE_FONTS = ("ui-monospace", "monospace")
MOST_CLASSES = 30  # lines of the table of counts
CSS = """
.counts table { width: 100%; border-collapse: collapse; font-size: 0.95rem; }
.counts th, .counts td { text-align: left; padding: 0.3rem 0.4rem;
  border: 0; border-bottom: 1px solid var(--border-color-primary); }
.counts table, .counts tr { border: 0 !important; }
.counts th:last-child, .counts td:last-child { text-align: right;
  font-variant-numeric: tabular-nums; }
.counts .color { display: inline-block; width: 0.8em; height: 0.8em;
  margin-right: 0.6em; border-radius: 0.2em; }
.message p { margin: 0; padding: 0.6rem 0.8rem; border-radius: 0.4rem;
  background: var(--background-fill-secondary);
  border-left: 4px solid var(--color-accent); overflow-wrap: anywhere; }
.message .error { border-left-color: #d33; }
/* On a narrow page the picture comes before the counts. */
@media (max-width: 640px) {
  .columns > .column { display: contents; }
  .columns > .column > * { flex: 1 1 100%; }
  .columns .after { order: 2; }
}
"""


def build(predictions: Predictions, title: str, score_thr: float) -> "gr.Blocks":
    """Build the page.

    Args:
        predictions: of the model.
        title: the model's name.
        score_thr: the threshold at the beginning.
    """
    import gradio as gr

    def show(outcome: Outcome, before: Any) -> dict:
        """The page's elements for an outcome."""
        _remove(before)
        text = _message(outcome.note) if outcome.note else ""
        return {
            message: gr.update(value=text, visible=bool(text)),
            picture: gr.update(value=outcome.picture, visible=bool(outcome.picture)),
            video: gr.update(value=outcome.video, visible=bool(outcome.video)),
            counts: gr.update(
                value=_table(outcome.counts, predictions.has_scores), visible=True
            ),
            download: gr.update(value=outcome.archive, visible=True),
            folder: outcome.archive.parent,
        }

    def nothing(text: str, before: Any) -> dict:
        """The page's elements without an outcome."""
        _remove(before)
        return {
            message: gr.update(value=text, visible=bool(text)),
            picture: gr.update(value=None, visible=False),
            video: gr.update(value=None, visible=False),
            counts: gr.update(value="", visible=False),
            download: gr.update(value=None, visible=False),
            predicted: None,
            folder: None,
        }

    def predict(path, threshold, before, progress=gr.Progress()):  # noqa: B008
        if path is None:
            return nothing("", before)
        advance = _progress(progress)
        try:
            outcome, kept = predictions.predict(Path(path), threshold, advance)
        except InputError as error:
            return nothing(_message(str(error), "error"), before)
        return {**show(outcome, before), predicted: kept}

    def draw(path, threshold, kept, before, progress=gr.Progress()):  # noqa: B008
        if kept is None:  # a video is predicted again, which nothing is kept of
            return predict(path, threshold, before, progress)
        try:
            return show(predictions.draw(kept, threshold), before)
        except InputError as error:
            return nothing(_message(str(error), "error"), before)

    with gr.Blocks(
        title=f"{title}: predictions",
        analytics_enabled=False,
        delete_cache=(600, 3600),  # every 10 minutes, files older than an hour
    ) as page:
        gr.Markdown(f"## {_escaped(title)}")
        predicted = gr.State(None)
        folder = gr.State(None, delete_callback=_remove)
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=1, min_width=280):
                upload = gr.File(
                    label=f"Image or video, up to {LARGEST} MB", height=150
                )
                threshold = gr.Slider(
                    *(0, 1),
                    value=score_thr,
                    step=0.01,
                    label="Score threshold",
                    info="Objects with a lower score are not drawn.",
                    visible=predictions.has_scores,
                )
                counts = gr.HTML(visible=False, elem_classes=["counts", "after"])
                download = gr.DownloadButton(
                    "Download the results (zip)",
                    variant="primary",
                    visible=False,
                    elem_classes="after",
                )
            with gr.Column(scale=2, min_width=280):
                message = gr.HTML(
                    _message("Drop an image or a video to see the predictions."),
                    elem_classes="message",
                )
                picture = gr.Image(
                    label="Predictions",
                    visible=False,
                    interactive=False,
                    type="filepath",
                    buttons=["fullscreen"],
                )
                video = gr.Video(
                    label="Predictions", visible=False, interactive=False, autoplay=True
                )
        elements = [message, picture, video, counts, download, predicted, folder]
        # One file at a time: the model and matplotlib are not for several threads.
        common: dict = dict(
            outputs=elements,
            concurrency_limit=1,
            concurrency_id="model",
            api_visibility="private",
            show_progress_on=[message, picture],
        )
        upload.change(predict, [upload, threshold, folder], **common)
        threshold.release(
            draw,
            [upload, threshold, predicted, folder],
            trigger_mode="always_last",
            **common,
        )
    return page


def _progress(progress: Callable) -> Callable[[int, int | None], None]:
    """A function that shows how many frames are done."""

    def advance(frame: int, count: int | None) -> None:
        of = f" of {count}" if count else ""
        progress((frame, count), desc=f"frame {frame}{of}")

    return advance


def _remove(folder: Path | None) -> None:
    """Remove the folder of an earlier result."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _message(text: str, css_class: str = "") -> str:
    role = "alert" if css_class else "status"
    return f'<p class="{css_class}" role="{role}">{_escaped(text)}</p>'


def _escaped(text: str) -> str:
    return html.escape(text)


def _table(counts: list[Count], has_scores: bool) -> str:
    """The counts as an HTML table."""
    if not counts:
        return _message("No object is above the threshold.")
    rows = [
        f'<tr><td><span class="color" style="background: rgb{color}"></span>'
        f"{_escaped(name)}</td><td>"
        f"{number if has_scores else format(number, '.1%')}</td></tr>"
        for name, color, number in counts[:MOST_CLASSES]
    ]
    if len(counts) > MOST_CLASSES:
        rows.append(
            f"<tr><td>{len(counts) - MOST_CLASSES} more classes</td><td></td></tr>"
        )
    unit = "objects" if has_scores else "share of pixels"
    head = f"<tr><th>class</th><th>{unit}</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"
