"""An agent that runs: its parts put together, in the order that is its correctness."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from edge_agent.agent import REMEMBERED_MS, Agent
from edge_agent.enforcer import Enforcer
from edge_agent.enrolment import Renewal
from edge_agent.geo import countries
from edge_agent.http import Doors
from edge_agent.identity import Shown
from edge_agent.inquiries import Inquiries
from edge_agent.journal import Journal
from edge_agent.journal_view import FILE_NAME
from edge_agent.metrics import now_ms
from edge_agent.mist.link import Link
from edge_agent.node_state import NodeState
from edge_agent.personal import Sealer
from edge_agent.policy import PolicyTable
from edge_agent.policy_intake import POLICY_KNOWN
from edge_agent.service import Service
from edge_agent.settings import EdgeSettings
from edge_agent.task_runner import TaskRunner
from edge_agent.turn import Node, Site
from edge_agent.uplink import Uplink, stored_days
from edge_agent.watchdog import Watchdog
from edge_agent.webhook import Webhooks
from streams.codec import decode_policy
from streams.errors import Invalid
from streams.generated import Policy
from streams.ingress.lease_client import LeaseClient
from streams.telemetry import log

logger = log(__name__)


@asynccontextmanager
async def running(settings: EdgeSettings) -> AsyncIterator[int]:
    """An agent that runs; gives its port. The order is the correctness:

    1. open the journal and take back what it knows: state, answers, policy
    2. open the door: what is known decides
    3. talk to the platform, and to the media server: it can call us now, so its triggers may be set
    and at the end: close the door, stop talking, write what was promised. OSError: the port, or the directory, is not to be had.
    """
    journal = Journal(settings.state_dir / FILE_NAME, settings.journal_bytes)
    journal.open()
    try:
        agent = _agent(settings, journal)
        settle_memory()
        shown = Shown(settings.state_dir, settings.credential_file)
        uplink = Uplink(journal, agent.policy, settings.ingress, shown, agent.sealer, journal.known())
        webhooks = Webhooks(allows_private=settings.decisions.allows_private_webhooks)
        lease = LeaseClient(settings.ingress, shown)
        async with webhooks, AsyncExitStack() as ending:
            ending.push_async_callback(lease.close)
            inquiries = Inquiries(settings.node_id, lease, webhooks, agent.policy.secret)
            service = Service(agent, journal, uplink, is_traced=settings.otel_endpoint is not None, inquiries=inquiries)
            renewal = service.renewal = Renewal(settings.state_dir, uplink.begin_anew)
            doors = Doors(service)
            port = await doors.listen(settings.listen.host, settings.listen.port)
            logger.info("listening for triggers", host=settings.listen.host, port=port, node_id=settings.node_id)
            mist = service.mist = _link(settings, journal, agent, service)
            enforcer = Enforcer(agent, journal, mist.api if mist else None)
            runner = TaskRunner(agent, journal, service.observe, mist.api if mist else None, settings.tasks)
            agent.policy.follow = _followed_by(enforcer, runner)
            own = (service.keep_tidy(), renewal.run(), Watchdog().run(service.status))
            works = (*uplink.tasks(), *own, enforcer.run(), runner.run(), *(mist.tasks() if mist else ()))
            async with asyncio.TaskGroup() as tasks:
                loops = [tasks.create_task(work) for work in works]
                try:
                    yield port
                finally:
                    await doors.close()
                    service.close()
                    for task in loops:
                        task.cancel()
                    service.keeper.say_counted(now_ms(), at_once=True)
            if mist:
                await mist.close()
    finally:
        journal.close()


def _followed_by(enforcer: Enforcer, runner: TaskRunner) -> Callable[[Policy | None, Policy | None], None]:
    def follow(old: Policy | None, new: Policy | None) -> None:
        enforcer.learn(old, new)
        runner.wake()

    return follow


def _link(settings: EdgeSettings, journal: Journal, agent: Agent, service: Service) -> Link | None:
    if settings.mist is None:
        return None
    agent.is_verified = True
    return Link(settings.mist, journal, agent.state, service.observe)


def settle_memory() -> None:
    """What is known at the start stays: 100,000 streams are not looked through by the collector again while a trigger waits; and
    while they come, not again and again (it held the loop up for a third of a second)."""
    gc.collect()
    gc.set_threshold(50_000, 5, 400)
    gc.freeze()


def _agent(settings: EdgeSettings, journal: Journal) -> Agent:
    policies = []
    for value in journal.policies():
        try:
            policies.append(decode_policy(value))
        except Invalid as reason:
            logger.error("a stored policy cannot be read; the next snapshot brings it again", reason=str(reason))
    state = NodeState()
    state.load(journal.state())
    known = journal.known()
    policy = PolicyTable(policies, is_known=POLICY_KNOWN in known, validity_seconds=settings.decisions.policy_validity_seconds)
    policy.secrets.update(journal.secrets())
    sealer = Sealer(state, stored_days(known), settings.key_seconds)
    node = Node.called(settings.node_id, settings.own_tenant)
    site = Site(asks_lease=True, balancer_url=settings.decisions.balancer_url, peer_networks=settings.decisions.peer_networks)
    agent = Agent(node, policy, state, countries(settings.geoip_database), sealer, site)
    agent.remember(journal.answers(now_ms() - REMEMBERED_MS))
    return agent
