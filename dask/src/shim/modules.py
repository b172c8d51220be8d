# ---- Functions by name. A worker outlives runs: the modules in a run's own directories are looked at again for each run, so that what was
# edited in between is what runs, and a namesake from another run's directory is not taken for them. What was found stays so for its run.
# What lies in another run's directory only is not there: that it once ran on this worker is chance.
import builtins

FUNCTIONS = {}
DIRECTORIES = set()
# Those of them that are searched for the sake of a run only.
INSERTED = set()
LOOKING = threading.local()
STAMPS = {}
MODULES = threading.RLock()
KEPT_RUNS = 64
looked = 0


def function_of(run, paths, target):
    known = FUNCTIONS.get(run)
    if known is not None and target in known:
        return known[target]
    with MODULES:
        if known is None:
            while len(FUNCTIONS) >= KEPT_RUNS:
                del FUNCTIONS[next(iter(FUNCTIONS))]
        use_paths(paths, target, known is None)
        with Own(paths) as own:
            searched = [p for p in sys.path if os.path.realpath(p) not in own.hidden]
            if own.lacks(target.partition(":")[0]):
                raise missing(target.partition(":")[0], searched)
            function = find(target, searched)
        own_modules(present(paths))
        FUNCTIONS.setdefault(run, {})[target] = function
    return function


def present(paths):
    # Directories of the driver: only those count that this worker has, too.
    return [p for p in paths if os.path.isdir(p)]


def use_paths(paths, target=None, new_run=True):
    paths = present(paths)
    with MODULES:
        if sys.path[:len(paths)] != paths:
            INSERTED.update(set(map(os.path.realpath, paths)) - set(map(os.path.realpath, sys.path)))
            sys.path[:] = paths + [p for p in sys.path if p not in paths]
        if paths:
            drop_others(paths, target)
            own, edited = own_modules(paths)
            if new_run and edited:
                for name in own:
                    sys.modules.pop(name, None)
        DIRECTORIES.update(os.path.realpath(p) for p in paths)
        importlib.invalidate_caches()


class Own:
    """While a run's modules are looked for, in this thread: what lies in directories of other runs only is not found."""

    def __init__(self, paths):
        self.hidden = INSERTED.difference(map(os.path.realpath, present(paths)))
        self.importing = builtins.__import__

    def __enter__(self):
        LOOKING.hidden = self.hidden
        if self.hidden:
            if FINDER not in sys.meta_path:
                sys.meta_path.insert(0, FINDER)
            # No finder is asked for what is loaded already. It stays where it is: those who have it may need it meanwhile.
            builtins.__import__ = self.guarded
        return self

    def __exit__(self, *_):
        LOOKING.hidden = None
        if builtins.__import__ == self.guarded:
            builtins.__import__ = self.importing

    def guarded(self, name, globals=None, locals=None, fromlist=(), level=0):
        # Somebody who has put his own around it may keep it, and others look by now.
        if level == 0 and getattr(LOOKING, "hidden", None) is self.hidden and self.lacks(name):
            raise ModuleNotFoundError("No module named %r" % name, name=name)
        return self.importing(name, globals, locals, fromlist, level)

    def lacks(self, name):
        """Whether a module is loaded for another run, and not there for this one. It makes room for one that is."""
        root = name.partition(".")[0]
        places = homes(sys.modules[root]) if root in sys.modules else set()
        if not places or not places <= self.hidden:
            return False
        try:
            FINDER.find_spec(root)
        except ModuleNotFoundError:
            return True
        for name in [name for name in sys.modules if name.partition(".")[0] == root]:
            del sys.modules[name]
        return False


class Finder:
    def find_spec(self, name, path=None, target=None):
        hidden = getattr(LOOKING, "hidden", None)
        if not hidden or path is not None:
            return None
        for finder in sys.meta_path:
            if finder is self:
                continue
            if finder is importlib.machinery.PathFinder:
                spec = finder.find_spec(name, [p for p in sys.path if os.path.realpath(p) not in hidden], target)
            else:
                spec = finder.find_spec(name, None, target) if hasattr(finder, "find_spec") else None
            if spec is not None:
                return spec
        raise ModuleNotFoundError("No module named %r" % name, name=name)


FINDER = Finder()


def homes(module):
    """The directories that a top-level module was found in."""
    file, places = getattr(module, "__file__", None), getattr(module, "__path__", None) or ()
    found = list(places) if places else [file] if isinstance(file, str) else []
    return {os.path.dirname(os.path.realpath(p)) for p in found}


def source_in(paths, root):
    """Where a top-level module is in these directories."""
    for p in paths:
        for file in (os.path.join(p, root, "__init__.py"), os.path.join(p, root + ".py")):
            if os.path.isfile(file):
                return os.path.realpath(file)
    return None


def loaded(paths):
    """The modules that bear a name that is also in these directories: name, module, real file, file of the top-level one here."""
    roots = {}
    for p in paths:
        try:
            entries = os.listdir(p)
        except OSError:
            continue
        for entry in entries:
            roots[entry[:-3] if entry.endswith(".py") else entry] = None
    for name, module in list(sys.modules.items()):
        root = name.partition(".")[0]
        file = getattr(module, "__file__", None)
        if root not in roots or root in ("__main__", "dask", "distributed") or not isinstance(file, str) or not file.endswith(".py"):
            continue
        if roots[root] is None:
            roots[root] = source_in(paths, root) or False
        if roots[root]:
            yield name, module, os.path.realpath(file), roots[root]


def is_of(file, source):
    return file == source or os.path.basename(source) == "__init__.py" and file.startswith(os.path.dirname(source) + os.sep)


def drop_others(paths, target):
    wanted = target.partition(":")[0].partition(".")[0] if target else None
    for name, _, file, source in list(loaded(paths)):
        if is_of(file, source):
            continue
        if any(file.startswith(directory + os.sep) for directory in DIRECTORIES):
            del sys.modules[name]
        elif name == wanted:
            text = "the worker has another Python module `%s` loaded, %s, not %s; rename yours, or restart the workers"
            raise Lookup(text % (name, file, source))


def own_modules(paths):
    """The modules from these directories, and whether one was edited since it was loaded."""
    global looked
    names, edited, now = [], False, time.time_ns()
    for name, module, file, source in loaded(paths):
        if not is_of(file, source):
            continue
        names.append(name)
        try:
            state = os.stat(file)
            stamp = (state.st_mtime_ns, state.st_size)
        except OSError:
            stamp = None
        known = STAMPS.get(name)
        if known is not None and known[0] is module:
            edited = edited or known[1] != stamp
        else:
            # Loaded since the last look, by a function's own import or by somebody else.
            if stamp is not None and stamp[0] > looked:
                stamp = None
            edited = edited or stamp is None
            STAMPS[name] = (module, stamp)
    looked = now
    return names, edited


