# ---- The heap: full garbage collections do not go over the tasks of a submission.

# With fewer tasks a full collection takes about as long as without any: 30 ms, 50 with large libraries.
GOES_UNSEEN = 500
# Seconds after which what others may have left behind is looked for all the same; when nothing was submitted for so many, if that comes
# before twice the time.
LONGEST_HELD, PAUSE = 3600.0, 10.0


class Heap:
    """Python's full collection goes over every task that Dask has, some 11 us each, in the middle of whatever the loop does: with 40,000 of
    them nobody is heard for half a second. So what is there while a submission enters is set aside, and given back when no task of ours is
    left. What nobody refers to any more goes at once all the same: only circles wait.

    Where the process is more than a scheduler, somebody's notebook, it is left alone: its circles may hold what is large."""

    def __init__(self, core):
        self.core, self.may = core, is_only_a_scheduler()
        # Of shims of all versions.
        self.held = getattr(core.scheduler, "_remuda_heap", None)
        if self.held is None:
            self.held = core.scheduler._remuda_heap = {"by": set(), "since": None, "last": 0.0}

    def made_room(self):
        """Before a part of a submission enters. Whether it took its time."""
        if not self.may or len(self.core.scheduler.tasks) < GOES_UNSEEN:
            return False
        try:
            return self.set_aside(time.monotonic())
        except Exception:
            complain("the heap was not set aside")
            self.may = False
            return False

    def set_aside(self, now):
        # How often the youngest were gone over since those after them were, and these since all were.
        (_, youngest, young), most = gc.get_count(), gc.get_threshold()
        if not gc.isenabled() or (youngest <= most[1] // 4 and not young):
            return False
        if self.held["since"] is None:
            if gc.get_freeze_count():
                # Somebody else's, and not ours to give back.
                self.may = False
                return False
            self.held["since"] = now
        self.held["by"].add(HASH)
        self.held["last"] = now
        # Garbage first, while there is little to go over.
        gc.collect(1)
        gc.freeze()
        return True

    def look(self, now):
        held = self.held
        if held["since"] is None:
            return
        if not self.core.records:
            held["by"].discard(HASH)
        lasted = now - held["since"]
        late = lasted >= LONGEST_HELD and (now - held["last"] >= PAUSE or lasted >= 2 * LONGEST_HELD)
        if late or not held["by"]:
            held["since"] = None
            held["by"].clear()
            gc.unfreeze()
        if late:
            gc.collect()


def is_only_a_scheduler():
    """One that Dask's command line started: its module, or what starts it, is there, and no notebook."""
    return "distributed.cli" in sys.modules and "ipykernel" not in sys.modules
