"""What a session may reach: settings files → values, hosts → verdicts, addresses → refusals. Pure; no sockets, no files.

Only what coworkd-egress needs is exported here, so that it imports no reader of files: that is `srt`, and `presets`.
"""

from coworkd.netpolicy.decide import Rules
from coworkd.netpolicy.guard import Guard, judge_address
from coworkd.netpolicy.hosts import BadHost, canonical_host
from coworkd.netpolicy.patterns import refuse_domain

__all__ = ["BadHost", "Guard", "Rules", "canonical_host", "judge_address", "refuse_domain"]
