# ---- Leases: what nobody has renewed for too long ends.

OWNER_CHECK = 0.2


async def keep(core):
    """Ends sessions and the scheduler itself, when nobody has renewed their leases."""
    lease, grace = number_of("REMUDA_LEASE"), number_of("REMUDA_LEASE_GRACE")
    last = time.monotonic()
    while True:
        await asyncio.sleep(OWNER_CHECK)
        try:
            now = time.monotonic()
            late, last = now - last - OWNER_CHECK, now
            core.heap.look(now)
            if late > 1:
                # The loop stood still, and nobody could be heard.
                core.owner["heard"] = min(core.owner["heard"] + late, now)
                for heard in (*core.sessions.values(), *core.watches):
                    heard.deadline += late
            for session in list(core.sessions.values()):
                if now >= session.deadline:
                    log.warning("the lease of session %s (%s) is over: releasing its tasks", session.ident, session.name)
                    comm = session.comm
                    await session.end()
                    if comm is not None:
                        comm.abort()
            core.pauses.look(now)
            core.waits.look(now)
            forget_staying(core)
            for watch in list(core.watches):
                if now >= watch.deadline:
                    watch.comm.abort()
                elif watch.owner:
                    core.owner["heard"] = now
            limit = lease if core.owner["ever"] or grace is None else grace
            if lease is not None and now - core.owner["heard"] >= limit:
                log.warning("no driver for %s s: closing, as REMUDA_LEASE says", text_of(limit))
                asyncio.ensure_future(core.scheduler.close(reason="the lease of its driver is over")
                                      if "reason" in inspect.signature(core.scheduler.close).parameters else core.scheduler.close())
                return
        except Exception:
            complain("leases were not checked")


def number_of(name):
    try:
        return float(os.environ[name])
    except (KeyError, ValueError):
        return None
