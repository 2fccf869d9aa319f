"""Where a bundle is, and sizes."""

from __future__ import annotations

from pathlib import Path

import pytest

from host_stub.cli.place import default_bundle, parse_size
from host_stub.words import Trouble


@pytest.mark.parametrize(
    ("environment", "platform", "place"),
    [
        ({"HOME": "/home/me"}, "linux", "/home/me/.local/share/cowork-vm/default"),
        ({"HOME": "/home/me", "XDG_DATA_HOME": "/data"}, "linux", "/data/cowork-vm/default"),
        ({"HOME": "/home/me", "XDG_DATA_HOME": "relative"}, "linux", "/home/me/.local/share/cowork-vm/default"),
        ({"HOME": "/Users/me"}, "darwin", "/Users/me/Library/Application Support/cowork-vm/default"),
        ({"HOME": "/home/me", "COWORK_BUNDLE": "/vm"}, "linux", "/vm"),
    ],
)
def test_the_bundle_is_where_such_things_are(environment: dict[str, str], platform: str, place: str) -> None:
    assert default_bundle(environment, platform) == Path(place)


@pytest.mark.parametrize(
    ("text", "size"),
    [("20G", 20 << 30), ("512MiB", 512 << 20), ("4 gb", 4 << 30), ("65536", 65536), ("1T", 1 << 40), ("3k", 3072)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1", "1.5G", "1P", "20 G B", "9" * 20])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(Trouble, match="is no size"):
        parse_size(text)
