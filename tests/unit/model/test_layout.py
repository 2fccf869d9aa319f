from __future__ import annotations

from coworkd.model.layout import BwrapFeatures


def test_features_are_what_the_help_names() -> None:
    features = BwrapFeatures(path="/usr/bin/bwrap", version="bubblewrap 9", options=frozenset(["--bind"]))
    assert features.has("--bind")
    assert not features.has("--bind-try")
