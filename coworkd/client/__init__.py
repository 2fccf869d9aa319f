"""The client: drive a guest from a host program. Stands on `coworkd.wire` and `coworkd.model` alone.

`connect` gives the blocking client; `coworkd.client.aio.connect` the one for trio, of the same shape. trio is not imported
here.
"""

from coworkd.client.collect import Collected
from coworkd.client.inbox import Output
from coworkd.client.process import Process
from coworkd.client.stream import Stream
from coworkd.client.sync import Client, Subscription, connect

__all__ = ["Client", "Collected", "Output", "Process", "Stream", "Subscription", "connect"]
