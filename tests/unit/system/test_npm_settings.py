from __future__ import annotations

import json
from pathlib import Path

from coworkd.system.npm_settings import read_npm
from tests.unit.system.settings_machine import Programs, machine, put


def urls(*given: object, **options: object) -> list[tuple[str, str]]:
    return [tuple(url) for url in read_npm(machine(*given, **options)).urls]  # type: ignore[arg-type,misc]


def npm(**settings: object) -> Programs:
    return Programs({"npm": json.dumps(settings)})


def test_npm_is_asked_and_answers_with_its_scopes(tmp_path: Path) -> None:
    programs = Programs(
        {
            "npm": json.dumps(
                {"registry": "https://npm.example/", "@corp:registry": "https://corp.example/", "cache": "https://x/"}
            )
        }
    )
    assert urls(tmp_path, programs=programs) == [
        ("https://npm.example/", "npm config get registry"),
        ("https://corp.example/", "npm config get @corp:registry"),
    ]


def test_npm_gets_its_own_variables_and_a_home_but_no_secret(tmp_path: Path) -> None:
    programs = npm(registry="https://npm.example/")
    urls(tmp_path, programs=programs, environ={"npm_config_registry": "https://env.example/", "AWS_KEY": "k"})
    [environ] = [environ for argv, environ in programs.asked if argv[:3] == ("npm", "config", "list")]
    assert environ["npm_config_registry"] == "https://env.example/"
    assert environ["HOME"] == "/root"
    assert "AWS_KEY" not in environ


def variables(*given: object, **options: object) -> dict[str, list[str]]:
    told = read_npm(machine(*given, **options))  # type: ignore[arg-type]
    return {name: [url.text for url in urls] for name, urls in told.variables.items()}


def test_npm_tells_what_it_would_not_answer_without_settings(tmp_path: Path) -> None:
    programs = npm(registry="https://npm.example/")
    programs.answers["npm config get registry"] = "https://npm.example\n"
    environ = {"npm_config_registry": "https://npm.example/"}
    assert variables(tmp_path, programs=programs, environ=environ) == {}, "that is its default"
    [(_, asked)] = [one for one in programs.asked if one[0] == ("npm", "config", "get", "registry")]
    assert "npm_config_registry" not in asked
    assert asked["npm_config_userconfig"] != asked["npm_config_globalconfig"]
    programs.answers["npm config get registry"] = "https://default.example/\n"
    assert variables(tmp_path, programs=programs) == {"NPM_CONFIG_REGISTRY": ["https://npm.example/"]}


def test_without_npm_its_files_tell(tmp_path: Path) -> None:
    put(tmp_path, "/etc/npmrc", "registry=https://file.example/\n@corp:registry=https://corp.example/\n")
    assert variables(tmp_path) == {"NPM_CONFIG_REGISTRY": ["https://file.example/"]}


def test_scopes_and_certificates_that_no_variable_tells_are_noted(tmp_path: Path) -> None:
    settings = {"registry": "https://npm.example/", "@corp:registry": "https://c.example/", "cafile": "/srv/ca.pem"}
    told = read_npm(machine(tmp_path, programs=npm(**settings)))
    assert [note.partition(":")[0] for note in told.notes] == ["npm config get @corp", "npm config get cafile"]
    assert "coworkctl ca install" in told.notes[1]
    assert read_npm(machine(tmp_path, programs=npm(registry="https://npm.example/", cafile=None))).notes == []


def test_yarn_tells_what_its_variables_and_files_say_of_no_scope(tmp_path: Path) -> None:
    put(tmp_path, "/root/.yarnrc", 'registry "https://old.example/"\nregistry "https://classic.example/"\n')
    text = 'npmScopes:\n  corp:\n    npmRegistryServer: "https://s.example"\n'
    put(tmp_path, "/root/.yarnrc.yml", text)
    assert variables(tmp_path) == {"YARN_REGISTRY": ["https://classic.example/"]}
    put(tmp_path, "/root/.yarnrc.yml", f'npmRegistryServer: "https://yarn.example"\n{text}')
    environ = {"YARN_REGISTRY": "https://env.example/"}
    assert variables(tmp_path, environ=environ) == {
        "YARN_REGISTRY": ["https://env.example/"],
        "YARN_NPM_REGISTRY_SERVER": ["https://yarn.example"],
    }


def test_without_npm_its_files_are_read_the_later_wins(tmp_path: Path) -> None:
    put(tmp_path, "/etc/npmrc", "registry=https://old.example/\n@corp:registry = https://corp.example/\n")
    put(tmp_path, "/root/.npmrc", "; a comment\nregistry = https://new.example/\n//new.example/:_authToken=hunter2\n")
    assert urls(tmp_path) == [("https://new.example/", "/root/.npmrc"), ("https://corp.example/", "/etc/npmrc")]
    assert urls(tmp_path, environ={"NPM_CONFIG_REGISTRY": "https://env.example/"})[0][0] == "https://env.example/"


def test_an_answer_that_is_none_leads_to_the_files(tmp_path: Path) -> None:
    put(tmp_path, "/root/.npmrc", "registry=https://file.example/\n")
    for answer in ("not json", "[]", "{}", '{"registry": 3}'):
        told = read_npm(machine(tmp_path, programs=Programs({"npm": answer})))
        assert [url.text for url in told.urls] == ["https://file.example/"]
        assert "has no registry" in told.notes[0]


def test_what_only_npm_can_expand_is_left_out(tmp_path: Path) -> None:
    put(tmp_path, "/root/.npmrc", "registry=https://${HOST}/\n")
    assert urls(tmp_path) == []


def test_yarn_is_asked_and_may_not_fetch_itself(tmp_path: Path) -> None:
    programs = Programs({"npm": '{"registry": "https://npm.example/"}', "yarn": "https://yarn.example\n"})
    assert ("https://yarn.example", "yarn config get registry") in urls(tmp_path, programs=programs)
    assert all(environ["COREPACK_ENABLE_NETWORK"] == "0" for argv, environ in programs.asked if argv[0] == "yarn")
    programs.answers["yarn"] = "undefined\n"
    assert urls(tmp_path, programs=programs) == [("https://npm.example/", "npm config get registry")]


def test_files_of_yarn_are_read(tmp_path: Path) -> None:
    put(
        tmp_path, "/root/.yarnrc", '# yarn\nregistry "https://classic.example/"\n"@corp:registry" "https://c.example"\n'
    )
    text = 'npmRegistryServer: "https://yarn.example"\nnpmScopes:\n  corp:\n    npmRegistryServer: https://s.example\n'
    put(tmp_path, "/root/.yarnrc.yml", text)
    assert [url for url, _ in urls(tmp_path)] == [
        "https://classic.example/",
        "https://c.example",
        "https://yarn.example",
        "https://s.example",
    ]


def test_where_nothing_is_known_it_is_said(tmp_path: Path) -> None:
    told = read_npm(machine(tmp_path))
    assert told.urls == []
    assert "npm is not installed" in told.notes[0]
