# ---- Tasks that no worker takes: why, for those who wait for them, and their end where none will come.

# Seconds until it is told what has changed for all of them: by then Dask has tried the worker that has come, and those that come with it.
RETELL = 0.1


class Waits:
    def __init__(self, core):
        self.core, self.scheduler = core, core.scheduler
        # When a worker came last, and when somebody's patience ends.
        self.joined, self.due = time.monotonic(), None
        # When the last of them went, if all have.
        self.left = None
        # What a keeper says of workers that are to come; whether there are none, and since when that and this are so.
        self.outlook, self.nobody, self.since = None, True, self.joined
        self.news, self.telling = False, False
        # Some that Dask keeps for the next worker that is free were told why they wait.
        self.queued = False

    def begin(self, record, key, state):
        """Dask has given it to nobody."""
        now = time.monotonic()
        self.notice(now)
        record.told, record.since = hindrance(self.core, key), record.since or now
        record.session.tell(["pending", record.number, record.told])
        self.queued = self.queued or state == "queued"
        if not self.nobody:
            self.end_by(max(now + 1, self.joined + LATE))
        elif self.outlook is not None and self.outlook.get("limit") is not None:
            self.end_by(max(record.since, self.since) + self.outlook["limit"])

    def end_by(self, due):
        self.due = due if self.due is None else min(self.due, due)

    def joins(self, state):
        """Dask takes the name of a worker that is not there for that of a host: now it is there. Whom others may help waits for it, too."""
        self.joined = time.monotonic()
        self.notice(self.joined)
        names, looked, there = called(state), set(), list(self.scheduler.workers.values())
        for task in list(self.scheduler.unrunnable):
            record = self.core.records.get(task.key)
            definition = record.definition if record is not None else None
            if definition is not None and definition not in looked:
                looked.add(definition)
                compared(definition, there)
            wanted = definition.workers if definition is not None else ()
            if wanted and (definition.loose or not names.isdisjoint(wanted)):
                task.worker_restrictions = set(task.worker_restrictions or ()) | {state.address}
        if self.scheduler.unrunnable or self.queued:
            self.tell_soon()

    def expect(self):
        """Who keeps the workers may have said something of those that are to come."""
        # The connection that was heard of last: one that was cut may stay for a while.
        told = max((watch for watch in self.core.watches if watch.outlook is not None), key=lambda watch: watch.deadline, default=None)
        outlook = told.outlook if told is not None else None
        if outlook != self.outlook:
            self.outlook, self.since = outlook, time.monotonic()
            if self.nobody:
                self.tell_soon()

    def notice(self, now):
        nobody = not self.scheduler.workers
        if nobody != self.nobody:
            self.nobody, self.since, self.news = nobody, now, nobody
            self.left = now if nobody else None

    def look(self, now):
        self.notice(now)
        if self.news or (self.queued and self.scheduler.running):
            self.news = False
            self.tell_soon()
        elif self.due is not None and now >= self.due:
            self.retell()

    def tell_soon(self):
        if not self.telling:
            self.telling = True
            self.core.loop.call_later(RETELL, self.retell)

    def retell(self):
        """What still hinders tasks, now that things have changed, or that nothing will change any more."""
        now, reasons, given_up = time.monotonic(), {}, {}
        self.telling, self.due = False, None
        self.notice(now)
        try:
            for task in list(self.scheduler.unrunnable):
                record = self.core.records.get(task.key)
                if record is not None:
                    self.tell(record, now, given_up, *self.unmatched(record, now, reasons))
            if self.nobody or (self.queued and self.scheduler.running):
                self.queued = self.nobody
                for task in list(getattr(self.scheduler, "queued", ())):
                    record = self.core.records.get(task.key)
                    if record is None:
                        continue
                    if self.nobody:
                        self.tell(record, now, given_up, *self.absent(record, now))
                    elif record.told is not None:
                        record.told = record.since = None
                        record.session.tell(["pending", record.number, None])
            for session, events in given_up.items():
                asyncio.ensure_future(session.refuse(events))
        except Exception:
            complain("what hinders tasks was not told")

    def tell(self, record, now, given_up, reason, vain):
        if vain is not None:
            given_up.setdefault(record.session, []).append(["refused", record.number, "unschedulable", *vain])
            return
        record.since = record.since or now
        if reason is not None and reason != record.told:
            record.told = reason
            record.session.tell(["pending", record.number, reason])

    def absent(self, record, now):
        """There is no worker at all: why it waits, and why it does so no more."""
        reason, definition = nobody_there(self.core), record.definition
        limit = self.outlook.get("limit") if self.outlook is not None else None
        if limit is None:
            if self.was_passed_over(record):
                # Nobody starts one like those that went for its sake.
                due = max(self.joined, record.since) + LATE
                if now < due:
                    self.end_by(due)
                return definition.unfit[0], definition.unfit if now >= due else None
            return reason, None
        due = max(record.since or now, self.since) + limit
        if now >= due:
            return reason, ("no worker could run it for %ss: %s" % (text_of(limit), reason), self.outlook.get("hint"))
        self.end_by(due)
        return reason, None

    def was_passed_over(self, record):
        """Whether workers that come as the work asks for them came or were there while it waited, and have gone again: none would do."""
        seen = self.left is not None and record.since is not None and record.since < self.left
        adapts = self.outlook is not None and self.outlook.get("adaptive")
        return seen and adapts and record.definition.unfit is not None and not is_for_first(record.definition)

    def unmatched(self, record, now, reasons):
        """The same for one that none of the workers fits, where there are any."""
        if self.nobody:
            return self.absent(record, now)
        # The same for all tasks of a definition: a look at each worker, once.
        definition = record.definition
        if definition not in reasons:
            why = compared(definition, list(self.scheduler.workers.values())) or NONE_RUNS
            reasons[definition] = why, hopeless(self.core, definition), hopeless(self.core, definition, True)
        reason, vain, at_last = reasons[definition]
        is_late = now >= self.joined + LATE
        if is_late and record.since is not None and now - record.since >= LATE:
            vain = at_last
        # A keeper's workers are all alike: what one does not offer, none that is to come will.
        elif not is_late and (definition.workers or not self.core.owner["ever"]):
            vain = None
        if vain is None:
            due = max(self.joined, record.since or now) + LATE
            self.end_by(due if due > now else now + LATE)
        return reason, vain
