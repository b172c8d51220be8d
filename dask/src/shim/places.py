# ---- Where tasks may run.

# Seconds after the last worker came, and of waiting, after which a task that none of them fits is given up.
LATE = 60
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


def hindrance(core, key):
    """Why no worker runs it."""
    task, workers = core.scheduler.tasks.get(key), list(core.scheduler.workers.values())
    record = core.records.get(key)
    if not workers:
        return "the cluster has no workers"
    if task is None or record is None:
        return None
    return lacking(record.definition, workers) or "no worker is running: all are paused or closing"


def hopeless(core, definition, at_last=False):
    """Why no worker will run it, as far as can be known, and what to do: None while there may be one, now or later. `at_last`: what may
    come has been waited for."""
    if not definition.workers and "resources" not in definition.annotations:
        return None
    workers = list(core.scheduler.workers.values())
    text = lacking(definition, workers)
    if text is None:
        return None
    if named(definition, workers):
        return text, "ask for what the workers have, or have a worker that offers it before the task is submitted"
    if not at_last and any(may_come(core, name) for name in definition.workers):
        return None
    return text, "name workers that are there, or let others do it with `allow_other_workers`"


def may_come(core, name):
    """Whether there may be a worker of that name later."""
    if core.owner["ever"]:
        # Somebody keeps these workers, and starts those that are not there yet.
        return name.isdigit() or bool(KEPT.fullmatch(name)) and name not in core.renamed.values()
    # One that was there may be started again under the same name.
    hosts = (address.split("://")[-1].rsplit(":", 1)[0] for address in core.renamed)
    return name in core.renamed or name in core.renamed.values() or name in hosts
