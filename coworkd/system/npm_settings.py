"""Which registries npm and yarn are set to: what they answer themselves, and else their files.

npm knows best: asked, it answers with its own default too, and with the registry of every scope. Where it is not installed its
files are read, of which a default cannot be learned. yarn is asked only where it is installed; it must not fetch itself
for that (corepack), so it is told not to use the network.

What is set is told as variables: npm's where it answers otherwise than it would without any settings, yarn's where its own files or
variables say so. The registry of a scope has no variable that a shell could set.

Sources: npmrc(5), npm-config(7), yarn's documentation of `.yarnrc` and `.yarnrc.yml`.
"""

from __future__ import annotations

import json
import re

from coworkd.system.tool_settings import Machine, Told

NPM_FILES = ("/etc/npmrc", "/usr/etc/npmrc", "/usr/local/etc/npmrc")
_REGISTRY = re.compile(r"\s*(?P<key>(?:@[^:\s=]+:)?registry)\s*=\s*(?P<url>\S+)\s*\Z")
_YARN_CLASSIC = re.compile(r"\s*\"?(?P<scope>@[^:\s]+:)?registry\"?\s+\"?(?P<url>[^\"\s]+)\"?\s*\Z")
_YARN = re.compile(r"(?P<scope>\s+)?npmRegistryServer:\s*[\"']?(?P<url>[^\"'\s]+)[\"']?\s*\Z")
_QUIET = {"npm_config_update_notifier": "false", "npm_config_offline": "true", "COREPACK_ENABLE_NETWORK": "0"}
_YARN_KEYS = ("registry", "npmRegistryServer")
_YARN_FILES = (
    (".yarnrc", _YARN_CLASSIC, "YARN_REGISTRY"),
    (".yarnrc.yml", _YARN, "YARN_NPM_REGISTRY_SERVER"),
)
"""Of yarn 1, and of those after it: the user's file, its lines, the variable that says the same."""
_UNSET = {"npm_config_userconfig": "/nonexistent/user", "npm_config_globalconfig": "/nonexistent/global"}
"""Two that are not there: npm refuses the same file for both."""


def read_npm(machine: Machine) -> Told:
    """The URLs of every registry that npm or yarn would fetch from."""
    told = Told()
    if not _ask_npm(machine, told):
        _read_npm_files(machine, told)
    _ask_yarn(machine, told)
    for name, pattern, variable in _YARN_FILES:
        if machine.environ.get(variable):
            told.set(machine.environ[variable], f"{variable} in the environment", variable)
        for path in machine.at_home(name):
            _read_lines(machine, path, pattern, told, variable)
    if not told.urls:
        told.notes.append("npm is not installed, and no file of it names a registry")
    return told


def _ask_npm(machine: Machine, told: Told) -> bool:
    answer = machine.ask(("npm", "config", "list", "--json"), {**machine.variables("NPM_CONFIG_"), **_QUIET})
    if answer is None:
        return False
    try:
        settings = json.loads(answer)
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict) or not isinstance(settings.get("registry"), str):
        told.notes.append("npm config list --json: the answer has no registry")
        return False
    for key, value in settings.items():
        if (key == "registry" or (key.startswith("@") and key.endswith(":registry"))) and isinstance(value, str):
            told.add(value, f"npm config get {key}")
            if key != "registry":
                told.notes.append(f"npm config get {key}: no variable tells a session of it; give it an .npmrc")
    if isinstance(settings.get("cafile"), str):
        told.note_certificates(settings["cafile"], "npm config get cafile")
    default = machine.ask(("npm", "config", "get", "registry"), {**_QUIET, **_UNSET}) or ""
    if settings["registry"].rstrip("/") != default.strip().rstrip("/"):
        told.set(settings["registry"], "npm config get registry", "NPM_CONFIG_REGISTRY")
    return True


def _read_npm_files(machine: Machine, told: Told) -> None:
    """The later file wins for each key, as in npm; what names a variable is npm's to know."""
    chosen: dict[str, tuple[str, str]] = {}
    for path in (*NPM_FILES, *machine.at_home(".npmrc")):
        for line in (machine.read(path, told) or "").splitlines():
            match = _REGISTRY.match(line)
            if match and "${" not in match["url"]:
                chosen[match["key"]] = (match["url"].strip("\"'"), path)
    for name, value in machine.environ.items():
        if name.lower() == "npm_config_registry" and value:
            chosen["registry"] = (value, f"{name} in the environment")
    for key, (url, by) in chosen.items():
        told.add(url, by)
        if key == "registry":
            told.set(url, by, "NPM_CONFIG_REGISTRY")


def _ask_yarn(machine: Machine, told: Told) -> None:
    for key in _YARN_KEYS:
        environ = {**machine.variables("YARN_", "NPM_CONFIG_"), **_QUIET}
        answer = (machine.ask(("yarn", "config", "get", key), environ) or "").strip()
        if re.match(r"https?://\S+\Z", answer):
            told.add(answer, f"yarn config get {key}")


def _read_lines(machine: Machine, path: str, pattern: re.Pattern[str], told: Told, variable: str) -> None:
    """`variable` is told what the last line says that is of no scope."""
    chosen = ""
    for line in (machine.read(path, told) or "").splitlines():
        match = pattern.match(line)
        if match:
            told.add(match["url"], path)
            chosen = chosen if match["scope"] else match["url"]
    if variable not in told.variables:
        told.set(chosen, path, variable)
