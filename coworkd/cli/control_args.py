"""The command line of `coworkctl`: every word it knows, and what it says to one it does not know.

Light: no command is imported here. A command names its handler as `module:function`; `control` imports it. The `policy` commands
bring their own parsers, and are imported only where the word stands in the command line.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from coworkd import __version__
from coworkd.cli.control_args_approvals import add_approvals
from coworkd.cli.control_args_audit import add_audit
from coworkd.cli.control_args_copy import add_copy
from coworkd.cli.control_args_doctor import add_doctor
from coworkd.cli.control_args_folders import add_folders
from coworkd.cli.control_args_limits import add_session_limits
from coworkd.cli.control_args_machine import add_machine
from coworkd.cli.control_args_session_disk import add_session_disk
from coworkd.cli.control_args_staged import add_staged
from coworkd.cli.control_args_storage import add_storage, parse_size
from coworkd.cli.control_args_tools import add_tools
from coworkd.cli.control_args_update import add_update
from coworkd.cli.control_parser import RUN_FAILURE_STATUS, Parser
from coworkd.cli.control_parser import add_command as _add

if TYPE_CHECKING:
    from coworkd.cli.control_parser import Subparsers

EPILOG = """\
without --to and COWORKD_URI the system's coworkd is used (/run/coworkd/coworkd.sock), and where there is none one is
started for this call (as root, on Linux).

examples:
  coworkctl run -- uname -a
  coworkctl run --session work --folder ~/project:project:rwd --cwd /sessions/work/mnt/project -- make
  coworkctl --to vsock://3:5005 ps --json
"""
RUN_EPILOG = """\
exit status: the command's own; 128+n if signal n ended it; 124 if --timeout did; 127 if there is no such command, 126 if
it cannot be executed, 125 if anything else of ours failed (the reason is on standard error).
"""


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The parsed command line; leaves by SystemExit where it is wrong, and for `--help`.

    Of `run`, all behind the first `--` is the command's, whatever it looks like.
    """
    parser = build_parser(words)
    head, tail = _split(words)
    args = parser.parse_args(head)
    args.failure_status = getattr(args, "failure_status", 1)
    if args.command == "run":
        args.argv = [*args.argv, *tail]
        if not args.argv:
            parser.failure_status = RUN_FAILURE_STATUS
            parser.error("run what? Write -- ARGV at the end")
    return args


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    marked = "--" in words and "run" in words[: words.index("--")]
    end = words.index("--") if marked else len(words)
    return list(words[:end]), list(words[end + 1 :])


def build_parser(words: Sequence[str]) -> Parser:
    """The whole parser. `words` is the command line, looked at only for whether `policy` is in it."""
    parser = Parser(
        prog="coworkctl",
        description="Run commands in sandboxed sessions, and see what they did.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"coworkctl {__version__}")
    parser.add_argument(
        "--to", metavar="URI", help="unix:///PATH, vsock://CID:PORT, hybrid:///PATH?port=N or virtio:///PATH"
    )
    parser.add_argument("--token-file", metavar="FILE", help="a file with the shared token, where the guest wants one")
    parser.add_argument("--json", action="store_true", default=False, help="print JSON instead of tables")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    _add_run(commands)
    _add_processes(commands)
    _add_sessions(commands)
    add_folders(commands)
    add_staged(commands)
    add_storage(commands)
    add_update(commands)
    add_copy(commands)
    add_approvals(commands)
    _add_egress(commands)
    _add_forward(commands)
    _add_policy(commands, words)
    _add_ca(commands)
    add_tools(commands)
    add_audit(commands)
    _add_records(commands)
    _add_daemon(commands)
    add_machine(commands)
    return parser


def _add_like_run(commands: Subparsers, name: str, handler: str, what: str) -> Any:
    parser = _add(
        commands, name, handler, what, epilog=RUN_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.failure_status = RUN_FAILURE_STATUS
    parser.set_defaults(failure_status=RUN_FAILURE_STATUS)
    return parser


def _add_run(commands: Subparsers) -> None:
    run = _add_like_run(commands, "run", "control_run:run", "run one command in a session's sandbox")
    run.unknown_hint = "; what belongs to the command stands behind --"
    _add_session_options(run)
    run.add_argument("--session", metavar="NAME", help="default: a new one, thrown away afterwards")
    run.add_argument("--timeout", type=float, metavar="S", help="end the command and all it started after S seconds")
    run.add_argument("--tty", "-t", action="store_true", help="give the command a terminal")
    run.add_argument("--stdin", "-i", action="store_true", help="pass standard input on (default: /dev/null)")
    _add_spool(run)
    _add_detach_keys(run)
    run.add_argument("argv", nargs="*", metavar="ARGV", help="the command and its arguments, after --")
    shell = _add_like_run(commands, "shell", "control_run:shell", "open a shell in a session")
    _add_session_options(shell)
    shell.set_defaults(spool_limit=None, spool_where=None, spool_full=None)
    _add_detach_keys(shell)
    shell.add_argument("session", nargs="?", metavar="SESSION", help="default: a new one, thrown away afterwards")


def _add_spool(parser: Any) -> None:
    parser.add_argument(
        "--spool-limit", type=parse_size, metavar="SIZE", help="so much of each stream is kept: 512K, 20M (default 1M)"
    )
    parser.add_argument("--spool-where", choices=("memory", "disk"), help="and kept there (default: memory)")
    parser.add_argument(
        "--spool-full",
        choices=("block", "drop-oldest"),
        help="when that is full the command waits to be read, or the oldest output goes (default: block; a terminal in a "
        "session that stays waits only while it is read)",
    )


def _add_detach_keys(parser: Any) -> None:
    parser.add_argument(
        "--detach-keys",
        metavar="KEYS",
        help="what leaves the command running when it is typed at its terminal, in a session that stays; none for nothing "
        "(default: COWORKD_DETACH_KEYS, else ctrl-p,ctrl-q)",
    )


def _add_session_options(parser: Any) -> None:
    parser.add_argument("--profile", metavar="P", help="the policy profile")
    parser.add_argument(
        "--folder",
        action="append",
        metavar="HOST_DIR:NAME:MODE[:optional]",
        help="share a directory as ~/mnt/NAME; MODE is ro, rw (write, no delete), rwd or staged; may be repeated",
    )
    parser.add_argument("--env", "-e", action="append", metavar="K=V", help="set a variable; may be repeated")
    parser.add_argument("--no-ask", action="store_true", help="do not ask here about deletes that wait for a person")
    parser.add_argument("--cwd", metavar="D", help="the directory to start in, as the command sees it (default: home)")


def _add_processes(commands: Subparsers) -> None:
    ps = _add(commands, "ps", "control_processes:ps", "list commands, running and ended")
    ps.add_argument("--session", metavar="NAME", help="only those of this session")
    attach = _add_like_run(
        commands, "attach", "control_run:attach", "come to a command: show its output, and type at its terminal"
    )
    _add_detach_keys(attach)
    attach.add_argument(
        "--replay",
        choices=("all", "screen", "none"),
        help="what is shown of the output that is kept (default: the last screenful of a terminal, else all)",
    )
    attach.add_argument("process", metavar="PROCESS")
    attach.add_argument("--stdin", "-i", action="store_true", help="pass standard input on; it stays open at its end")
    kill = _add(commands, "kill", "control_processes:kill", "end a command, or send it a signal")
    kill.add_argument("process", metavar="PROCESS")
    kill.add_argument("--signal", metavar="S", help="only send this signal to its group: TERM, SIGINT or a number")
    kill.add_argument(
        "--grace", type=float, metavar="S", help="seconds between TERM and the end of all (default 5; 0: at once)"
    )


def _add_sessions(commands: Subparsers) -> None:
    session = _add(commands, "session", None, "make, list, show and remove sessions")
    verbs = session.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    ensure = _add(verbs, "ensure", "control_sessions:ensure", "make a session, or bring it up to what is said here")
    ensure.add_argument("name", metavar="NAME")
    ensure.add_argument("--profile", metavar="P", help="the policy profile")
    ensure.add_argument(
        "--folder", action="append", metavar="HOST_DIR:NAME:MODE[:optional]", help="as in: coworkctl run --help"
    )
    ensure.add_argument(
        "--env", "-e", action="append", metavar="K=V", help="a variable of all its commands; may be repeated"
    )
    _add(verbs, "list", "control_sessions:list_all", "list the sessions")
    show = _add(verbs, "show", "control_sessions:show", "show one session")
    show.add_argument("name", metavar="NAME")
    add_session_limits(verbs)
    add_session_disk(verbs)
    policy = _add(verbs, "policy", "control_session_policy:show", "show what holds for a session now")
    policy.add_argument("name", metavar="NAME")
    remove = _add(verbs, "rm", "control_sessions:remove", "remove a session with all it holds")
    remove.add_argument("name", metavar="NAME")
    remove.add_argument("--force", "-f", action="store_true", help="also when commands of it still run")


def _add_egress(commands: Subparsers) -> None:
    egress = _add(commands, "egress", None, "see what gets out of sessions, and allow more of it for a while")
    verbs = egress.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    check = _add(verbs, "check", "control_egress:check", "say whether a host may be reached; status 1 where not")
    check.add_argument("target", metavar="HOST[:PORT]", help="port 443 where none is said")
    whose = check.add_mutually_exclusive_group()
    whose.add_argument("--session", metavar="NAME", help="from this session (default: of the profile default)")
    whose.add_argument("--profile", metavar="P", help="by this profile")
    log = _add(verbs, "log", "control_egress:log", "show the newest connections and refusals")
    log.add_argument("--session", metavar="NAME", help="only those of this session")
    log.add_argument("--refused", action="store_true", help="only what was refused")
    log.add_argument("--limit", "-n", type=int, default=100, metavar="N", help="how many (default 100)")
    log.add_argument("--follow", "-f", action="store_true", help="go on with what comes, until interrupted")
    allow = _add(verbs, "allow", "control_egress:allow", "allow a session a host for a while")
    allow.add_argument("session", metavar="SESSION")
    allow.add_argument("host", metavar="HOST", help="a host or pattern, as in allowedDomains")
    allow.add_argument("--for", dest="duration", required=True, metavar="TIME", help="90s, 10m, 2h or 1d")
    presets = _add(verbs, "presets", "control_presets:presets", "show what each preset is on this machine")
    said = "ask pip, npm and apt here, and keep what they say in FILE (default /etc/coworkd/presets.json; -: print it)"
    presets.add_argument("--write", nargs="?", const="/etc/coworkd/presets.json", metavar="FILE", help=said)
    _add(verbs, "status", "control_egress:status", "count the connections of each session")


def _add_forward(commands: Subparsers) -> None:
    forward = _add(commands, "forward", "control_forward:forward", "reach a port that a session listens on")
    forward.add_argument("session", metavar="SESSION")
    forward.add_argument("port", type=int, metavar="PORT", help="the port inside the session")
    forward.add_argument(
        "local_port",
        type=int,
        nargs="?",
        metavar="LOCAL_PORT",
        help="where to listen on 127.0.0.1 (default: the same; 0: any)",
    )


def _add_policy(commands: Subparsers, words: Sequence[str]) -> None:
    if "policy" not in words:
        _add(commands, "policy", None, "check, show, explain, compare and set policies")
        return
    from coworkd.cli.policy_files import add_parser

    add_parser(commands)


def _add_ca(commands: Subparsers) -> None:
    ca = _add(commands, "ca", None, "add certificate authorities that sandboxes trust, list and remove them")
    verbs = ca.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    install = _add(
        verbs, "install", "control_ca:install", "trust the authorities in a PEM file; replaces what had the name"
    )
    install.add_argument("name", metavar="NAME", help="what to call them: letters, digits, '.', '_' and '-'")
    install.add_argument("file", metavar="FILE", help='PEM certificates; "-" reads them')
    _add(verbs, "list", "control_ca:list_all", "list the certificates that were installed")
    remove = _add(verbs, "rm", "control_ca:remove", "trust what was installed under a name no more")
    remove.add_argument("name", metavar="NAME")


def _add_records(commands: Subparsers) -> None:
    events = _add(commands, "events", "control_records:events", "show events as they come, until interrupted")
    events.add_argument("--after", type=int, metavar="SEQ", help="begin behind this one, with those still kept")
    logs = _add(commands, "logs", "control_records:logs", "show the newest log lines of coworkd")
    logs.add_argument("--limit", "-n", type=int, default=200, metavar="N", help="how many (default 200)")
    logs.add_argument("--component", metavar="C", help="only those of this part")
    logs.add_argument("--level", choices=["debug", "info", "warning", "error"], help="only these and worse")


def _add_daemon(commands: Subparsers) -> None:
    add_doctor(commands)
    _add(commands, "info", "control_daemon:info", "show what is at the other end")
    stats = _add(commands, "stats", "control_daemon:stats", "show what it is doing")
    stats.add_argument("--prometheus", action="store_true", help="in the text format of Prometheus")
    call = _add(commands, "call", "control_daemon:call", "call any method; the answer is JSON")
    call.add_argument("method", metavar="METHOD", help="as in docs/protocol.md")
    call.add_argument(
        "params",
        nargs="?",
        default="{}",
        metavar="JSON",
        help='its parameters, "-" reads them; bytes are {"$bin": base64}',
    )
