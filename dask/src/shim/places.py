# ---- Where tasks may run.


def text_of(amount):
    return str(int(amount)) if float(amount).is_integer() else str(amount)


def resolved(scheduler, names):
    """As Dask's annotation: addresses where known, so that a number is found by its text, too."""
    found = {}
    for state in scheduler.workers.values():
        found[str(state.name)] = state.address
    return [found.get(name, name) for name in names]


def hindrance(core, key):
    """Why no worker runs it."""
    task, workers = core.scheduler.tasks.get(key), list(core.scheduler.workers.values())
    record = core.records.get(key)
    if not workers:
        return "the cluster has no workers"
    if task is None or record is None:
        return None
    wanted = record.definition.workers
    if wanted and not record.definition.loose:
        named = [ws for ws in workers if {str(ws.name), ws.address, ws.host} & set(wanted)]
        if not named:
            names = sorted(str(ws.name) for ws in workers)
            asked = " or ".join("`%s`" % name for name in wanted)
            near = difflib.get_close_matches(wanted[0], names, 1)
            more = " and %d more" % (len(names) - 8) if len(names) > 8 else ""
            hint = "; did you mean `%s`?" % near[0] if near else ""
            return "no worker is called %s; there are %s%s%s" % (asked, ", ".join(names[:8]), more, hint)
        workers = named
    for name, need in (task.resource_restrictions or {}).items():
        most = max((ws.resources[name] for ws in workers if name in ws.resources), default=None)
        if most is None:
            near = difflib.get_close_matches(name, sorted({r for ws in workers for r in ws.resources}), 1)
            hint = "; did you mean `%s`?" % near[0] if near else ""
            return "no worker offers %s=%s; none offers any %s%s" % (name, text_of(need), name, hint)
        if most < need:
            return "no worker offers %s=%s; the most any offers is %s=%s" % (name, text_of(need), name, text_of(most))
    if task.resource_restrictions:
        needs = ", ".join("%s=%s" % (name, text_of(need)) for name, need in task.resource_restrictions.items())
        return "no single worker offers all of %s" % needs
    return "no worker is running: all are paused or closing"
