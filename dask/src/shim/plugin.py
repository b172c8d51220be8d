# ---- The scheduler's plugin, and how the shim comes where it is needed.


class SchedulerShim(SchedulerPlugin):
    name = NAME
    idempotent = True

    async def start(self, scheduler):
        self.begin(scheduler)

    def begin(self, scheduler):
        core = getattr(scheduler, CORE, None)
        if core is None:
            core = Core(scheduler)
            setattr(scheduler, CORE, core)
        self.core = core
        # Without a step between: these are called for every task there is.
        self.transition, self.add_worker, self.remove_worker = core.transition, core.add_worker, core.remove_worker
        self.update_graph = core.meter.update_graph


class Sent:
    """Pickled, it is the worker's plugin, also where the module is not there yet."""

    def __reduce__(self):
        text = "(exec(B, {'H': H, 'V': V, 'S': S, 'B': B}), __import__('sys').modules['_remuda_' + H].WorkerShim())[1]"
        return eval, (text, {"B": BOOT, "H": HASH, "V": VERSION, "S": SOURCE})


async def dask_setup(server):
    """When preloaded, by a scheduler or a worker."""
    if hasattr(server, "update_graph"):
        plugin = SchedulerShim()
        plugin.begin(server)
        server.add_plugin(plugin, name=NAME)
        if NAME not in server.worker_plugins:
            arguments = {"comm": None, "plugin": pickle.dumps(Sent()), "name": NAME}
            if "idempotent" in inspect.signature(server.register_worker_plugin).parameters:
                arguments["idempotent"] = True
            await server.register_worker_plugin(**arguments)
    elif hasattr(server, "plugin_add"):
        await server.plugin_add(WorkerShim(), name=NAME)
