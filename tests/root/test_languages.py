"""The tools people work with, inside the default sandbox and inside the strict one: each does a small real piece of work.

A machine need not have them all: each test names its tool as a capability, whose lack is told (tests/capabilities.toml).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from coworkd.client.sync import Client
from tests.root.conftest import Daemon
from tests.root.live import client_of, exited, session_of

pytestmark = pytest.mark.needs("bubblewrap")

TIMEOUT_S = 50
PROFILES = ("default", "strict")


class Shop:
    """A session, and bash in it with `set -e`; each script begins in a fresh directory of the home."""

    def __init__(self, client: Client, session: str) -> None:
        self._client = client
        self._session = session

    def work(self, script: str) -> list[str]:
        """The lines it prints. Fails with all it said where it does not end with 0."""
        head = 'set -euo pipefail\ncd "$(mktemp -d ~/work-XXXXXX)"\n'
        ran = self._client.run(self._session, ["/bin/bash", "-c", head + script], timeout_s=TIMEOUT_S)
        said = ran.stdout.decode() + ran.stderr.decode()
        assert ran.exit == exited(0), said
        return ran.stdout.decode().splitlines()


@pytest.fixture(scope="module", params=PROFILES)
def shop(daemon: Daemon, request: pytest.FixtureRequest) -> Iterator[Shop]:
    with (
        client_of(daemon) as client,
        session_of(client, f"language-{request.param}", profile=request.param) as session,
    ):
        yield Shop(client, session)


@pytest.mark.needs("python3")
def test_python_runs_threads_processes_and_asyncio(shop: Shop) -> None:
    script = """
cat >work.py <<'END'
import asyncio, hashlib, multiprocessing, sqlite3, ssl, subprocess, sys, tempfile, threading
def square(number): return number * number
async def said():
    child = await asyncio.create_subprocess_exec("echo", "child", stdout=subprocess.PIPE)
    return (await child.communicate())[0]
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        print(sum(pool.map(square, range(10))))
    print(asyncio.run(said()).decode().strip())
    seen = []
    thread = threading.Thread(target=seen.append, args=(1,)); thread.start(); thread.join()
    print(len(seen), sqlite3.connect(tempfile.mktemp()).execute("select 40 + 2").fetchone()[0])
END
python3 work.py
"""
    assert shop.work(script) == ["285", "child", "1 42"]


@pytest.mark.needs("python3")
def test_python_makes_a_virtual_environment(shop: Shop) -> None:
    script = "python3 -m venv --without-pip env\nenv/bin/python -c 'import sys; print(sys.prefix != sys.base_prefix)'"
    assert shop.work(script) == ["True"]


@pytest.mark.needs("gcc")
def test_gcc_compiles_dynamic_and_static_programs(shop: Shop) -> None:
    script = r"""
cat >work.c <<'END'
#include <pthread.h>
#include <stdio.h>
static void *add(void *sum) { for (int i = 1; i <= 100; i++) *(int *)sum += i; return sum; }
int main(void) {
    pthread_t thread; int sum = 0;
    pthread_create(&thread, 0, add, &sum); pthread_join(thread, 0);
    printf("%d\n", sum);
    return 0;
}
END
gcc -O2 -Wall -Werror -pthread -o work work.c
./work
gcc -static -O0 -g -pthread -o work-static work.c
./work-static
"""
    assert shop.work(script) == ["5050", "5050"]


@pytest.mark.needs("gcc")
def test_leak_sanitizer_traces_its_program_in_the_default_profile(daemon: Daemon) -> None:
    """It stops the program's threads by ptrace, which the profile `dev` allows for whatever is not the sandbox's init."""
    script = r"""
echo '#include <stdlib.h>
int main(void) { volatile char *lost = malloc(7); lost = 0; return lost != 0; }' >work.c
gcc -g -O0 -fsanitize=address -o work work.c
./work 2>said && exit 1
grep -o '7 byte(s) leaked' said
"""
    with client_of(daemon) as client, session_of(client, "language-leak") as session:
        assert Shop(client, session).work(script) == ["7 byte(s) leaked"]


@pytest.mark.needs("gcc", "make")
def test_make_builds_in_parallel(shop: Shop) -> None:
    script = r"""
printf 'all: a b\na b: %%: %%.o\n\tgcc -o $@ $<\n' >Makefile
for name in a b; do echo "int puts(const char *); int main(void) { return puts(\"$name\") < 0; }" >$name.c; done
make -s -j2 all
./a; ./b
"""
    assert shop.work(script) == ["a", "b"]


@pytest.mark.needs("gcc", "cmake", "make")
def test_cmake_configures_and_builds(shop: Shop) -> None:
    script = r"""
printf 'cmake_minimum_required(VERSION 3.10)\nproject(work C)\nadd_executable(work work.c)\n' >CMakeLists.txt
echo 'int puts(const char *); int main(void) { return puts("built") < 0; }' >work.c
cmake -S . -B build >log
cmake --build build >>log
build/work
"""
    assert shop.work(script) == ["built"]


@pytest.mark.needs("git")
def test_git_commits_clones_and_collects(shop: Shop) -> None:
    script = """
git init -q -b main here
cd here
git config user.name probe; git config user.email probe@localhost
echo one >file; git add file; git commit -qm first
git checkout -q -b other; echo two >file; git commit -qam second
git checkout -q main; git merge -q --no-edit other
git gc -q
cd ..
git clone -q here there
git clone -q --no-local here elsewhere
git -C there log --format=%s
cat elsewhere/file
git -C here fsck --strict
"""
    assert shop.work(script) == ["second", "first", "two"]


@pytest.mark.needs("node")
def test_node_runs_workers_children_and_a_local_server(shop: Shop) -> None:
    script = """
cat >work.js <<'END'
const { Worker, isMainThread, parentPort } = require("node:worker_threads");
if (!isMainThread) { parentPort.postMessage(6 * 7); } else {
  new Worker(__filename).on("message", (answer) => {
    console.log(answer, require("node:child_process").execFileSync("echo", ["child"]).toString().trim());
    const server = require("node:http").createServer((_, reply) => reply.end("served"));
    server.listen(0, "127.0.0.1", () => require("node:http").get({ port: server.address().port, host: "127.0.0.1" }, (got) => {
      got.on("data", (data) => console.log(data.toString())); got.on("end", () => server.close());
    }));
  });
}
END
node work.js
"""
    assert shop.work(script) == ["42 child", "served"]


@pytest.mark.needs("node", "npm")
def test_npm_makes_a_package_and_runs_its_script(shop: Shop) -> None:
    script = """
npm init -y >log
npm pkg set scripts.work="node -e 'console.log(6 * 7)'"
mkdir local; (cd local; npm init -y >log; echo 'module.exports = "linked"' >index.js)
npm install --offline --no-audit --no-fund ./local >log
npm run --silent work
node -e 'console.log(require("local"))'
"""
    assert shop.work(script) == ["42", "linked"]


@pytest.mark.needs("java")
def test_java_compiles_and_runs_threads(shop: Shop) -> None:
    script = """
cat >Work.java <<'END'
import java.util.stream.IntStream;
public class Work {
    public static void main(String[] words) throws Exception {
        System.out.println(IntStream.rangeClosed(1, 100).parallel().sum());
        var child = new ProcessBuilder("echo", "child").redirectErrorStream(true).start();
        System.out.print(new String(child.getInputStream().readAllBytes()));
    }
}
END
javac Work.java
java Work
java -XX:+UseSerialGC -Xmx64m Work.java
"""
    assert shop.work(script) == ["5050", "child", "5050", "child"]


@pytest.mark.needs("java", "maven")
def test_maven_starts(shop: Shop) -> None:
    assert shop.work("mvn --offline --version")[0].count("Apache Maven") == 1
