from __future__ import annotations

import pytest

from imagebuild.accounts import Accounts
from imagebuild.trouble import Trouble

PASSWD = "root:*:0:0:root:/root:/bin/bash\ndaemon:*:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"
GROUP = "root:*:0:\ndaemon:*:1:\nshadow:*:42:\n"


def made(*texts: str) -> Accounts:
    accounts = Accounts.parse(PASSWD, GROUP)
    accounts.add_sysusers(texts)
    return accounts


def test_numbers_of_one_s_own_come_from_the_top_down_in_the_order_of_the_files() -> None:
    accounts = made('u first - "The first"\n', "g second - -\nu third - -\n")
    assert accounts.groups["second"][0] == 999
    assert accounts.users["first"][:3] == (998, 998, "The first")
    assert accounts.users["third"][0] == 997


def test_fixed_numbers_and_groups_of_others_are_kept() -> None:
    accounts = made("u games 5:60 - /usr/games /usr/sbin/nologin\ng games 60 -\nm games shadow\n")
    assert accounts.users["games"] == (5, 60, "", "/usr/games", "/usr/sbin/nologin")
    assert accounts.groups["shadow"] == (42, ["games"])


def test_who_is_there_stays_as_it_is() -> None:
    assert made("u root 0 - /elsewhere /bin/sh\n").users["root"] == (0, 0, "root", "/root", "/bin/bash")


def test_two_users_never_get_one_number() -> None:
    with pytest.raises(Trouble, match="another has it"):
        made("u other 1 -\n")


def test_no_account_has_a_password() -> None:
    files = made("u first - -\n").compose()
    assert {line.split(":")[1] for line in files["shadow"].splitlines()} == {"!*"}
    assert {line.split(":")[1] for line in files["passwd"].splitlines()} == {"x"}
    assert len(files["shadow"].splitlines()) == len(files["passwd"].splitlines()) == 3
