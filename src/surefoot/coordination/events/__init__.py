"""Events: what happened, published once, and acted on by one agent of each group that wants to know.

    publish   -> a row of the topic, in the transaction of its reasons (`topic`)
    dispatch  -> each group's place in the topic moves on, and a run of the group's function is started (`dispatch`)
    order     -> runs of one key go one after another: they share a lane of `runs.queueing`
    end       -> a run that completes is a delivery that is done; one that doesn't is a dead letter (`states`, `letters`)

What holds: publishing is one commit with what caused it; moving a group's place and starting the runs is one commit, so an
event is never passed over and never delivered twice; the run's id is made of group, topic and event, so that whatever is
delivered again is the same run. All the rest (kills, takeovers, effects that act once) is what runs have anyway.

Source: the log and its consumer groups are Kafka's (Kreps et al. 2011); dead letters are those of message queues.
"""

from surefoot.coordination.events.dispatch import Dispatcher
from surefoot.coordination.events.groups import on
from surefoot.coordination.events.letters import DeadLetter, GroupNotFound, GroupServed, GroupView, LetterNotFound
from surefoot.coordination.events.tables import MIGRATIONS
from surefoot.coordination.events.topic import Event, EventConflict, Topic

__all__ = [
    "MIGRATIONS",
    "DeadLetter",
    "Dispatcher",
    "Event",
    "EventConflict",
    "GroupNotFound",
    "GroupServed",
    "GroupView",
    "LetterNotFound",
    "Topic",
    "on",
]
