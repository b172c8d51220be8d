# ---- Where tasks may run.

# Seconds after the last worker came, and of waiting, after which a task that none of them fits is given up.
LATE = 60
# Seconds for which a worker has been paused until that is told: some are for a moment. By then it has told what it runs.
PAUSED = 1
# Why a task waits that some worker is fit for.
NONE_RUNS = "no worker is running: all are paused or closing"
# How a keeper names its workers: the place, and how many have had it before. No name comes twice.
KEPT = re.compile(r"(0|[1-9][0-9]*)-(0|[1-9][0-9]*)")


def text_of(amount):
    return str(int(amount)) if float(amount).is_integer() else str(amount)


def called(state):
    """What a worker may be called. A keeper's also by its place, which whoever replaces it has, too."""
    name = str(state.name)
    kept = KEPT.fullmatch(name)
    return {name, state.address, state.host} | ({kept.group(1)} if kept else set())


def resolved(scheduler, names):
    """As Dask's annotation: addresses where known, so that a number is found by its text, too."""
    wanted, found = set(names), {}
    for state in scheduler.workers.values():
        for name in called(state) & wanted - {state.host}:
            found.setdefault(name, []).append(state.address)
    return [place for name in names for place in found.get(name, [name])]


def named(definition, workers):
    """Those of the workers that it may run on."""
    if definition.workers and not definition.loose:
        return [ws for ws in workers if called(ws) & set(definition.workers)]
    return workers


def listed(names):
    return ", ".join(names[:8]) + (" and %d more" % (len(names) - 8) if len(names) > 8 else "")


def lacking(definition, workers):
    """What it asks for and none of the workers that are there has."""
    if not workers:
        return None
    candidates, resources = named(definition, workers), definition.annotations.get("resources") or {}
    if not candidates:
        names = sorted(str(ws.name) for ws in workers)
        asked = " or ".join("`%s`" % name for name in definition.workers)
        near = difflib.get_close_matches(definition.workers[0], names, 1)
        hint = "; did you mean `%s`?" % near[0] if near else ""
        return "no worker is called %s; there are %s%s" % (asked, listed(names), hint)
    for name, need in resources.items():
        most = max((ws.resources[name] for ws in candidates if name in ws.resources), default=None)
        if most is None:
            offered = sorted({r for ws in candidates for r in ws.resources})
            near = difflib.get_close_matches(name, offered, 1)
            hint = "; did you mean `%s`?" % near[0] if near else "; there are %s" % listed(offered) if offered else ""
            return "no worker offers %s=%s; none offers any %s%s" % (name, text_of(need), name, hint)
        if most < need:
            return "no worker offers %s=%s; the most any offers is %s=%s" % (name, text_of(need), name, text_of(most))
    if resources and not any(all(ws.resources.get(name, 0) >= need for name, need in resources.items()) for ws in candidates):
        return "no single worker offers all of %s" % ", ".join("%s=%s" % (name, text_of(need)) for name, need in resources.items())
    return None


def remedy(definition, workers):
    if named(definition, workers):
        return "ask for what the workers have, or have a worker that offers it before the task is submitted"
    return "name workers that are there, or let others do it with `allow_other_workers`"


def compared(definition, workers):
    """What these workers lack: kept for the time after them."""
    text = lacking(definition, workers)
    definition.unfit = (text, remedy(definition, workers)) if text is not None else None
    return text


def is_for_first(definition):
    """Only the worker of the first place would do, which a keeper starts next where nobody is there."""
    return "0" in definition.workers and not definition.loose and "resources" not in definition.annotations


def nobody_there(core):
    outlook = core.waits.outlook
    return outlook["reason"] if outlook is not None else "the cluster has no workers"


def hindrance(core, key):
    """Why no worker runs it."""
    task, workers = core.scheduler.tasks.get(key), list(core.scheduler.workers.values())
    record = core.records.get(key)
    if not workers:
        return nobody_there(core)
    if task is None or record is None:
        return None
    return compared(record.definition, workers) or NONE_RUNS


def hopeless(core, definition, at_last=False):
    """Why no worker will run it, as far as can be known, and what to do: None while there may be one, now or later. `at_last`: what may
    come has been waited for."""
    if not definition.workers and "resources" not in definition.annotations:
        return None
    workers = list(core.scheduler.workers.values())
    text = lacking(definition, workers)
    if text is None:
        return None
    if not named(definition, workers) and not at_last and any(may_come(core, name) for name in definition.workers):
        return None
    return text, remedy(definition, workers)


def may_come(core, name):
    """Whether there may be a worker of that name later."""
    if core.owner["ever"]:
        # Somebody keeps these workers, and starts those that are not there yet.
        return name.isdigit() or bool(KEPT.fullmatch(name)) and name not in core.renamed.values()
    # One that was there may be started again under the same name.
    hosts = (address.split("://")[-1].rsplit(":", 1)[0] for address in core.renamed)
    return name in core.renamed or name in core.renamed.values() or name in hosts


class Pauses:
    """Workers that take up no tasks, for want of memory mostly: what they were sent waits on them, and what is queued waits for them."""

    def __init__(self, core):
        # By address: since when, and the tasks that were told of it.
        self.core, self.paused = core, {}
        self.due, self.queued = 0, False

    def look(self, now):
        """Leases are looked at behind it, whatever happens here."""
        if now >= self.due:
            self.due = now + PAUSED / 2
            try:
                self.tell(now)
            except Exception:
                complain("what waits on paused workers was not told")

    def tell(self, now):
        scheduler = self.core.scheduler
        if len(scheduler.running) == len(scheduler.workers) and not self.paused:
            return
        for address in list(self.paused):
            state = scheduler.workers.get(address)
            if state is None or state.status != Status.paused:
                self.over(address)
        waits = {}
        for address, state in scheduler.workers.items():
            if state.status == Status.paused:
                since, told = self.paused.setdefault(address, (now, set()))
                heard = now - max(time.time() - state.last_seen, 0)
                if now - since >= PAUSED and heard - since >= PAUSED / 2:
                    reason = "worker %s has paused, as its memory is nearly full, and takes up no task" % state.name
                    waits.update({task.key: reason for task in self.waiting(state, told)})
                    told.update(task.key for task in state.processing)
        if not scheduler.running and self.paused and not self.queued and all(now - since >= PAUSED for since, _ in self.paused.values()):
            self.queued = self.core.waits.queued = True
            waits.update({task.key: None for task in getattr(scheduler, "queued", ())})
        elif scheduler.running:
            self.queued = False
        for key, reason in waits.items():
            record = self.core.records.get(key)
            if record is not None and record.told is None:
                record.told, record.since = reason or hindrance(self.core, key), time.monotonic()
                record.session.tell(["pending", record.number, record.told])

    def waiting(self, state, told):
        return [task for task in state.processing
                if task.key not in told and task not in state.executing and task not in state.long_running]

    def over(self, address):
        _, told = self.paused.pop(address)
        for key in told:
            record, task = self.core.records.get(key), self.core.scheduler.tasks.get(key)
            if record is not None and record.told is not None and task is not None and task.state == "processing":
                record.told = record.since = None
                record.session.tell(["pending", record.number, None])
