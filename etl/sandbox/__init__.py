"""The vendor's API on loopback, with generated numbers: for trying the program out, for the demo and for tests.

`Account` holds the numbers, `SandboxServer` serves them over real HTTP, `Answer` scripts what it should answer instead
of them (faults above all), and `ReceivedRequest` is what a client sent.
"""

from etl.sandbox.account import Account
from etl.sandbox.messages import Answer, ReceivedRequest
from etl.sandbox.server import SandboxServer

__all__ = ["Account", "Answer", "ReceivedRequest", "SandboxServer"]
