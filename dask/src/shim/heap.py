# ---- The heap: full garbage collections do not go over the tasks of a submission.

# So many tasks are gone over in no time.
GOES_UNSEEN = 2000
# Seconds after which what others may have left behind is looked for all the same.
LONGEST_HELD = 3600.0


class Heap:
    """Python's full collection goes over every task that Dask has, some 11 us each, in the middle of whatever the loop does: with 40,000 of
    them nobody is heard for half a second. So what is there while a submission enters is set aside, and given back when no task of ours is
    left, after an hour at the latest. What nobody refers to any more goes at once all the same: only circles wait.

    Where the process is more than a scheduler, somebody's notebook, it is left alone: its circles may hold what is large."""

    def __init__(self, core):
        self.core, self.since = core, None
        # What somebody else has set aside is not ours to give back; other versions of this do the same.
        shared = getattr(core.scheduler, "_remuda_heap", None)
        if shared is None:
            shared = core.scheduler._remuda_heap = {"ours": is_only_a_scheduler() and not gc.get_freeze_count()}
        self.may = shared["ours"]

    def made_room(self):
        """Before a part of a submission enters. Whether it took its time."""
        if not self.may or len(self.core.scheduler.tasks) < GOES_UNSEEN:
            return False
        # How often the youngest were gone over since those after them were, and these since all were.
        (_, youngest, young), most = gc.get_count(), gc.get_threshold()
        if not gc.isenabled() or (youngest <= most[1] // 4 and not young):
            return False
        # Garbage first, while there is little to go over.
        gc.collect(1)
        gc.freeze()
        if self.since is None:
            self.since = time.monotonic()
        return True

    def look(self, now):
        late = self.since is not None and now - self.since >= LONGEST_HELD
        if late or (self.since is not None and not self.core.records):
            self.since = None
            gc.unfreeze()
        if late:
            gc.collect()


def is_only_a_scheduler():
    """One that its command line started: its module, or what starts it, is there."""
    return "distributed.cli" in sys.modules
