from __future__ import annotations

from pathlib import Path

import pytest

from coworkd.release.minisign import parse_public_keys
from imagebuild import cli
from imagebuild.trouble import Trouble

KEY = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"


KEYS = {count: "".join(f"{KEY[:-1]}{number}\n" for number in range(count)) for count in (2, 8, 9)}


def recipe_of(*words: str, name: str = "aarch64") -> object:
    return cli.compose_recipe(cli.build_parser().parse_args(["--mirror", "http://mirror.test/x", *words]), name)


def test_the_words_become_a_recipe(tmp_path: Path) -> None:
    key = tmp_path / "update.pub"
    key.write_text(f"untrusted comment: minisign public key\n{KEY}\n")
    made = recipe_of("--suite", "jammy", "--with", "tools", "--verity", "--update-key", str(key))
    assert made.suite.name == "jammy"  # type: ignore[attr-defined]
    assert {"gcc", "bubblewrap"} <= set(made.packages)  # type: ignore[attr-defined]
    assert (made.verity, made.update_key) == (True, KEY)  # type: ignore[attr-defined]
    assert made.sources[0].splitlines()[0] == "deb http://mirror.test/x jammy main universe"  # type: ignore[attr-defined]


def test_an_own_list_takes_the_place_of_the_small_one(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("bash\nubuntu:only-there\n")
    assert recipe_of("--packages", str(mine)).packages == ("bash",)  # type: ignore[attr-defined]


@pytest.mark.parametrize("count", [2, 8])
def test_a_key_that_is_being_changed_has_the_next_beside_it(tmp_path: Path, count: int) -> None:
    key = tmp_path / "update.pub"
    key.write_text(f"untrusted comment: old and new\n{KEYS[count]}")
    text = cli.read_update_key(key)
    assert f"{text}\n" == KEYS[count]
    assert len(parse_public_keys(f"{text}\n".encode())) == count


@pytest.mark.parametrize("text", ["", "RWshort\n", f"{KEY}\n{KEY}\n", "untrusted comment: x\n", KEYS[9]])
def test_what_is_no_key_is_refused(tmp_path: Path, text: str) -> None:
    key = tmp_path / "key"
    key.write_text(text)
    with pytest.raises(Trouble, match="no public key of minisign"):
        cli.read_update_key(key)


def test_what_cannot_be_built_is_said_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["--mirror", "nowhere", "--cache", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("rootfs-build: --mirror 'nowhere' is neither")


def test_images_are_compared_by_every_file(tmp_path: Path) -> None:
    for name, files in {"one": {"a": "1", "b": "2", "c": "3"}, "two": {"a": "1", "b": "x", "d": "3"}}.items():
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text)
    assert cli.compare_images(tmp_path / "one", tmp_path / "two") == ["b", "c", "d"]
    assert cli.compare_images(tmp_path / "one", tmp_path / "one") == []
