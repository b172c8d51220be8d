# ---- Tasks into the scheduler: its `update_graph` in the form of each version.

PARKED, PARKING = {}, itertools.count()
UNDERSTOOD = {
    "self", "client", "keys", "internal_priority", "submitting_task", "user_priority", "actors", "fifo_timeout", "code", "annotations",
    "stimulus_id", "span_metadata", "expr_ser", "graph_header", "graph_frames",
}


def parked(number):
    return PARKED.pop(number)


class Stub:
    """The pickle that `update_graph` reads: it gets the graph that lies ready here, nothing is really pickled."""

    def __init__(self, number):
        self.number = number

    def __reduce__(self):
        return parked, (self.number,)


class Graph:
    """As much of a Dask expression as `update_graph` uses."""

    def __init__(self, tasks, annotations):
        self.tasks, self.annotations = tasks, annotations

    def __dask_graph__(self):
        return self.tasks

    def __dask_annotations__(self):
        return self.annotations


class Submitter:
    def __init__(self, scheduler):
        self.scheduler = scheduler
        parameters = inspect.signature(scheduler.update_graph).parameters
        self.parameters = set(parameters)
        needed = {name for name, p in parameters.items() if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        self.unknown = sorted(needed - UNDERSTOOD)
        if not self.parameters & {"expr_ser", "graph_header"}:
            self.unknown.append("a graph")

    def check(self):
        if self.unknown:
            text = "this shim does not know how to submit to distributed %s: `update_graph` wants %s"
            raise Refused("unsupported", text % (distributed.__version__, ", ".join(self.unknown)),
                          "use a release of distributed that is supported, or a newer Remuda")

    async def submit(self, client, groups, priorities, parent=None):
        """`groups`: pairs of annotations and the tasks, by key, that have them."""
        self.check()
        scheduler, number = self.scheduler, next(PARKING)
        arguments = {
            "client": client, "keys": set(priorities), "internal_priority": priorities, "submitting_task": parent,
            "annotations": {}, "fifo_timeout": "100 ms",
        }
        if "span_metadata" in self.parameters:
            arguments["span_metadata"] = {"collections": []}
        stub = pickle.dumps(Stub(number))
        if "expr_ser" in self.parameters:
            from distributed.protocol.serialize import Serialized

            tasks, by_type = {}, {}
            for annotations, members in groups:
                tasks.update(members)
                for name, value in annotations.items():
                    by_type.setdefault(name, {}).update(dict.fromkeys(members, value))
            PARKED[number] = Graph(tasks, by_type)
            arguments["expr_ser"] = Serialized({"serializer": "pickle", "writeable": ()}, [stub])
        else:
            from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
            from distributed.protocol.serialize import ToPickle

            layers = {str(n): MaterializedLayer(members, annotations=annotations or None) for n, (annotations, members) in enumerate(groups)}
            PARKED[number] = ToPickle(HighLevelGraph(layers, {name: set() for name in layers}))
            arguments["graph_header"] = {"serializer": "pickle", "writeable": ()}
            arguments["graph_frames"] = [stub]
        try:
            arguments = {name: value for name, value in arguments.items() if name in self.parameters}
            result = scheduler.update_graph(**arguments)
            if inspect.isawaitable(result):
                await result
        finally:
            PARKED.pop(number, None)
