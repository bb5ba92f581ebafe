"""Model card: the README.md of an exported model, as people and the Hugging Face Hub read it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from nas.deployment.formats import ExportedFormat, TorchAccuracy
from nas.records.record import Record
from search_spaces.printable import markdown

_FIGURES = {
    "map50_95": ("mAP50-95", "{:.3f}"),
    "map50": ("mAP50", "{:.3f}"),
    "gflops": ("GFLOPs", "{:.2f}"),
    "params": ("parameters", "{:,}"),
    "latency_ms": ("latency, ms", "{:.2f}"),
}
_HEAD = """\
---
license: agpl-3.0
library_name: ultralytics
pipeline_tag: object-detection
---
"""
_LICENCE = """\
AGPL-3.0, which is the licence of [Ultralytics](https://github.com/ultralytics/ultralytics) and of nas. It holds for
the code and for weights trained with them; Ultralytics sells another. The training images have a licence of their
own."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Content of a model card.

    Attributes:
        title: such as `v9t-digits, trial 4`.
        base: the stock model, such as `yolov9t.yaml`.
        model: scores and costs of the model, with the means over its seeds.
        stock: the same of the stock model; None if it is not trained.
        scored: how the scores were measured, as a sentence.
        verdict: what fresh seeds have shown, or what would show it.
        operators: papers of the operators, by name.
        usage: code or commands, in one block each, after a sentence.
        files: what each file is.
        formats: further formats of the model.
        torch_accuracy: with which those of the formats are compared; None if it was not measured.
    """

    title: str
    base: str
    model: Record
    stock: Record | None
    scored: str
    verdict: Sequence[str]
    operators: Mapping[str, str]
    usage: Sequence[tuple[str, str, str]]
    files: Mapping[str, str]
    formats: Sequence[ExportedFormat] = field(default=())
    torch_accuracy: TorchAccuracy | None = None

    def text(self) -> str:
        """Return the card as Markdown."""
        return "\n".join([_HEAD, *self._lines()]).rstrip() + "\n"

    def _lines(self) -> Iterator[str]:
        summary = self.model.summary.removeprefix(f"{self.model.member}: ")  # the base model is named before it
        what = f"with other operators in it: {markdown(summary)}" if self.operators else "as it is"
        yield f"# {markdown(self.title)}\n"
        yield f"A YOLO detector: {markdown(self.base)}, {what}. Found by neural architecture search with nas.\n"
        yield from self._table()
        yield f"\n{markdown(self.scored)}\n"
        yield "**Verdict.** " + "\n".join(map(markdown, self.verdict)) + "\n"
        yield "## Use\n"
        for sentence, language, block in self.usage:
            yield f"{sentence}\n\n```{language}\n{block}\n```\n"
        yield "## Files\n\n| file | what it is |\n|---|---|"
        yield from (f"| `{name}` | {what} |" for name, what in self.files.items())
        yield from self._format_lines()
        if self.operators:
            yield "\n## Operators\n"
            yield from (f"- {markdown(name)}: {markdown(reference)}" for name, reference in self.operators.items())
        yield f"\n## Licence\n\n{_LICENCE}\n"

    def _table(self) -> Iterator[str]:
        of = f" of {markdown(self.stock.member)}" if self.stock is not None and self.stock.member else ""
        yield f"| | this model | stock model{of} |\n|---|---|---|"
        for name, (heading, form) in _FIGURES.items():
            ours, theirs = getattr(self.model, name), getattr(self.stock, name, None)
            if ours is not None:
                yield f"| {heading} | {form.format(ours)} | {'-' if theirs is None else form.format(theirs)} |"

    def _format_lines(self) -> Iterator[str]:
        if not self.formats:
            return
        torch = self.torch_accuracy
        yield f"\n| format | compared with PyTorch |{f' mAP50-95 at {torch.size} px |' if torch else ''}"
        yield f"|---|---|{'---|' if torch else ''}"
        if torch:
            yield f"| PyTorch | | {torch.map50_95:.4f} |"
        for one in self.formats:
            accuracy = "-" if one.map50_95 is None else f"{one.map50_95:.4f}"
            yield f"| {one.name} | {one.finding} |{f' {accuracy} |' if torch else ''}"
        if torch and torch.remark:
            yield f"\n{torch.remark}"
