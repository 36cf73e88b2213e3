"""Run a job on a cluster: place the ranks, start them, follow them, write run.json."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from aclcmp.orchestrator.cluster.cluster import Cluster
from aclcmp.orchestrator.cluster.head_watch import HeadWatch
from aclcmp.orchestrator.core.job import Device, Job, Launcher
from aclcmp.orchestrator.core.run_record import Failure, RunRecord
from aclcmp.orchestrator.errors import LaunchError
from aclcmp.orchestrator.launch.actors import ACTOR_SECONDS, SignalError, gather, rank_hosts
from aclcmp.orchestrator.launch.dump_setup import DumpOrder, DumpSetup, sentences
from aclcmp.orchestrator.launch.environment import Rendezvous, rank_environment
from aclcmp.orchestrator.launch.failure import first_failure, interruption, stop_message
from aclcmp.orchestrator.launch.follow_ranks import Command, Outcome, Reason, RunningHost, StopAdviser, Watcher, follow
from aclcmp.orchestrator.launch.guarded_command import Start
from aclcmp.orchestrator.launch.job_check import check_job
from aclcmp.orchestrator.launch.placement import RESOURCE, Grant, Spread, place, resolve_device, spread
from aclcmp.orchestrator.launch.record_writer import RecordWriter
from aclcmp.orchestrator.launch.signals import Interrupts
from aclcmp.orchestrator.run.directory import RunDir

_UNFINISHED = Failure(rank=None, what="aclcmp itself was killed before the run ended")


def check_fit(job: Job, cluster: Cluster) -> tuple[Device, Spread]:
    """Return the device that the ranks compute on, and their distribution over hosts.

    Raises UsageError for a wrong job, or one too large for the cluster.

    `launch` checks this too; callers check first to refuse a job before its run directory is made.
    """
    check_job(job)
    return resolve_device(job, cluster.nodes), spread(job, cluster.nodes)


def launch(job: Job, cluster: Cluster, run: RunDir, watcher: Watcher, adviser: StopAdviser | None = None) -> RunRecord:
    """Run the job to its end, or until the `adviser` gives a reason to stop; return the record, saved as run.json.

    Ranks that fail, hang or are interrupted (the first SIGINT or SIGTERM) are part of the record, not exceptions; no
    process of them is left. The record is saved when the ranks start, in case aclcmp itself is killed, and again at the
    end.

    Raises UsageError like `check_fit`, LaunchError when the ranks cannot be started, KeyboardInterrupt on a second
    signal. After the loss of the cluster's head, which `cluster.head` also tells, no further call into Ray is possible.
    """
    device, how = check_fit(job, cluster)
    writer = RecordWriter(job, device, cluster.address_words, run, watcher.say)
    with Interrupts() as interrupts:
        try:
            with rank_hosts(how, device, interrupts, cluster.head) as actors:
                hosts, writer.environment, setups = _start(job, cluster, run, device, actors, interrupts)
                commands = [command for host in hosts for command in host.commands]
                writer.low_level = sentences(setups)
                writer.save(commands, _UNFINISHED)
                if writer.low_level:
                    watcher.on_dump_setup(writer.low_level)
                watcher.on_start([rank for command in commands for rank in command.ranks])

                def failure_of(outcome: Outcome) -> Failure | None:
                    head = cluster.head.words if outcome.reason is Reason.HEAD else ""
                    progress = adviser.progress if adviser else ""
                    return first_failure(commands, outcome, interrupts.caught, job.timeout, head, progress)

                try:
                    outcome = follow(
                        hosts,
                        watcher,
                        job.timeout,
                        lambda: _stop_reason(interrupts, cluster.head, adviser),
                        lambda outcome: stop_message(outcome, failure_of(outcome)),
                    )
                except KeyboardInterrupt:
                    writer.save(commands, interruption(interrupts.caught, "the ranks were killed"))
                    raise
                writer.stop_reason = adviser.stop_reason if adviser and outcome.reason is Reason.ENOUGH else ""
                return writer.save(commands, failure_of(outcome))
        except SignalError:
            return writer.save((), interruption(interrupts.caught, "no rank had started"))
        except LaunchError as error:
            writer.save((), Failure(rank=None, what=str(error)))
            raise


def _stop_reason(interrupts: Interrupts, head: HeadWatch, adviser: StopAdviser | None) -> Reason | None:
    if interrupts.caught is not None:
        return Reason.SIGNAL
    if head.lost:
        return Reason.HEAD
    return Reason.ENOUGH if adviser and adviser.stop_reason else None


def _start(
    job: Job, cluster: Cluster, run: RunDir, device: Device, actors: Sequence[Any], interrupts: Interrupts
) -> tuple[list[RunningHost], dict[str, str], list[DumpSetup]]:
    """Number the ranks by where Ray placed the host actors, and start them.

    Return the hosts with their commands, the first rank's environment, and what was prepared for every command's dumps.
    """
    late = f"the hosts' actors did not answer within {ACTOR_SECONDS:g} s"

    def answers(calls: Sequence[Any]) -> list[Any]:
        return gather(calls, interrupts, cluster.head, ACTOR_SECONDS, late)

    grants: list[Grant] = answers([actor.describe.remote(RESOURCE.get(device), run.shards) for actor in actors])
    placements = place(job, grants, cluster.nodes[0].ip)
    first = placements[0][0]
    # Chosen last, on the host of rank 0: until rank 0 listens, another process may take the port.
    (port,) = answers([actors[first.actor].free_port.remote()])
    address = first.ip if len(placements) > 1 else "127.0.0.1"
    rendezvous = Rendezvous(run.run_id, run.shards, address, port, len(placements))

    driver = dict(os.environ)
    hosts, setup_calls, environments = [], [], []
    for ranks in placements:
        grant, actor = grants[ranks[0].actor], actors[ranks[0].actor]
        same_node = grant.node_id == cluster.driver_node_id
        groups = [ranks] if job.launcher is Launcher.SCRIPT else [(rank,) for rank in ranks]
        commands, orders = [], []
        for position, group in enumerate(groups):
            leader = group[0]
            environment = rank_environment(
                job, device, leader, rendezvous, driver, same_node=same_node, interface=grant.interface
            )
            if job.launcher is Launcher.SCRIPT:
                log, dumps = run.node_log(leader.group_rank), run.node_dumps(leader.group_rank)
            else:
                log, dumps = run.log(leader.rank), run.rank_dumps(leader.rank)
            dump = DumpOrder(dumps, frozenset(job.env), position) if job.low_level else None
            orders.append(Start(job.command, environment, not same_node, job.cwd, log, run.shards, dump))
            environments.append(environment)
            commands.append(Command(group, log, time.time()))
        setup_calls.append(actor.start.remote(orders))
        hosts.append(RunningHost(actor, tuple(commands)))
    setups: list[DumpSetup] = [setup for of_host in answers(setup_calls) for setup in of_host if setup]
    return hosts, environments[0] | (dict(setups[0].variables) if setups else {}), setups
