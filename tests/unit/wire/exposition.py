"""A strict reader of the text format of Prometheus 0.0.4, for tests: what breaks a rule of it is an `AssertionError`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_HELP = re.compile(r"# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) ((?:[^\\\n]|\\\\|\\n)+)\Z")
_TYPE = re.compile(r"# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge)\Z")
_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)\Z", re.DOTALL)
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"')
_VALUE = re.compile(r"(-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?|NaN|[+-]Inf)\Z")


@dataclass
class Metric:
    """One family, its samples by their labels."""

    kind: str
    help: str
    samples: dict[tuple[tuple[str, str], ...], float] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """Of a metric without labels."""
        (labels,) = self.samples
        assert labels == ()
        return self.samples[()]

    def by(self, label: str) -> dict[str, float]:
        """Of a metric with this one label."""
        return {dict(labels)[label]: value for labels, value in self.samples.items()}


def parse_exposition(text: str) -> dict[str, Metric]:
    """Each family by its name."""
    assert text.endswith("\n"), "the last line ends in a line feed"
    found: dict[str, Metric] = {}
    name, told = "", ""
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP"):
            match = _HELP.match(line)
            assert match is not None, line
            name, told = match[1], match[2]
            assert name not in found, f"{name} is told twice"
        elif line.startswith("# TYPE"):
            match = _TYPE.match(line)
            assert match is not None, line
            assert match[1] == name, f"TYPE of {match[1]} behind HELP of {name}"
            found[name] = Metric(kind=match[2], help=told)
            assert name.endswith("_total") == (match[2] == "counter"), name
        else:
            labels, value = _parse_sample(line, name)
            assert labels not in found[name].samples, f"{line} is told twice"
            found[name].samples[labels] = value
    for name, metric in found.items():
        assert metric.samples, f"{name} has no sample"
    return found


def _parse_sample(line: str, name: str) -> tuple[tuple[tuple[str, str], ...], float]:
    match = _SAMPLE.match(line)
    assert match is not None, line
    assert match[1] == name, f"a sample of {match[1]} among those of {name}"
    assert _VALUE.match(match[3]), line
    labels: list[tuple[str, str]] = []
    rest = match[2]
    while rest:
        label = _LABEL.match(rest)
        assert label is not None, line
        labels.append((label[1], re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], label[2])))
        rest = rest[label.end() :]
        assert not rest or rest.startswith(","), line
        rest = rest[1:]
    assert len({label for label, _ in labels}) == len(labels), line
    return tuple(labels), float(match[3])
