"""The whole agent in the test's own process, without a platform: its door, journal, loops, and what it said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from edge_agent.agent import Agent
from edge_agent.enforcer import Api, Enforcer
from edge_agent.http import Doors
from edge_agent.inquiries import Inquiries
from edge_agent.journal import Journal
from edge_agent.journal_file import PolicyRow, Upkeep
from edge_agent.lease import Lease
from edge_agent.node_state import NodeState
from edge_agent.personal import Sealer
from edge_agent.policy import PolicyTable
from edge_agent.service import Service
from edge_agent.turn import Node, Site
from edge_agent.uplink import Uplink
from edge_agent.webhook import Webhooks
from streams.codec import decode, decode_policy, encode_policy
from streams.generated import Fact, Policy
from streams.ids import OPERATOR_TENANT
from streams.policies import policy_key
from tests.edge_node import DAY_KEYS
from tests.edge_process import request

F = TypeVar("F", bound=Fact)
WAIT_SECONDS = 60.0


@dataclass
class RunningEdge:
    port: int
    agent: Agent
    journal: Journal
    service: Service
    enforcer: Enforcer

    @property
    def trigger_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/trigger"

    async def post(self, trigger: str, body: str, *, uuid: str, pid: int = 100) -> tuple[int, str]:
        headers = {"X-Trigger-UUID": uuid, "X-Instance": "InstanceA", "X-PID": str(pid)}
        status, answer = await request(self.port, "POST", f"/trigger/{trigger}", body.encode(), headers)
        return status, answer.decode()

    def learn(self, *policies: Policy) -> None:
        """As news from the platform come: into the table, then onto the disk."""
        changed = self.agent.policy.update(policies, 0)
        rows = tuple(PolicyRow(key, encode_policy(policy), b"") for key, policy in changed.items())
        self.journal.write(Upkeep(policies=rows))

    def said(self, kind: type[F]) -> list[F]:
        """Facts of a kind that are on the disk, in the order in which they were said."""
        entries = self.journal.after(0, 100_000, 1 << 30, 0)
        return [fact for fact, _ in (decode(entry.value) for entry in entries) if isinstance(fact, kind)]

    async def until(self, is_so: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while not is_so():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def running_edge(
    directory: Path,
    policies: Iterable[Policy] = (),
    *,
    api: Api | None = None,
    lease: Lease | None = None,
    webhooks: Webhooks | None = None,
    secrets: dict[UUID, bytes] | None = None,
    port: int = 0,
) -> AsyncIterator[RunningEdge]:
    """Opened again in the same directory it goes on with what the journal has; `policies` are known then besides."""
    journal = Journal(directory / "journal.db")
    journal.open()
    state = NodeState()
    state.load(journal.state())
    known = {policy_key(p): p for p in (*map(decode_policy, journal.policies()), *policies)}
    table = PolicyTable(known.values(), is_known=True)
    table.secrets.update(secrets or {})
    node, site = Node.called("edge-1", OPERATOR_TENANT), Site(asks_lease=lease is not None)
    agent = Agent(node, table, state, lambda _: None, Sealer(state, [DAY_KEYS]), site)
    async with webhooks or Webhooks(allows_private=True) as asked:
        inquiries = Inquiries("edge-1", lease, asked, table.secret)
        service = Service(agent, journal, Uplink(journal, table, "127.0.0.1:1", lambda: ""), is_traced=False, inquiries=inquiries)
        enforcer = Enforcer(agent, journal, api)
        table.follow = enforcer.learn
        doors = Doors(service)
        port = await doors.listen("127.0.0.1", port)
        task = asyncio.create_task(enforcer.run())
        try:
            yield RunningEdge(port, agent, journal, service, enforcer)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await doors.close()
            service.close()
            journal.close()
