# ---- Groups of tasks that need each other.


def circular(needs):
    """Those that need themselves, by way of others."""
    left = unsorted(needs)
    needed = {one: [] for one in left}
    for one in left:
        for other in needs[one]:
            if other in needed:
                needed[other].append(one)
    return unsorted(needed)


def straighten(groups, circle):
    """Leaves out what they need each other for by turns, since groups in a circle pass for work that can begin now: who needs what is
    outside comes first, then who came first."""
    groups = {group["id"]: group for group in groups}
    begin = sorted(circle, key=lambda one: (all(other in circle for other in groups[one]["dependencies"]), one))
    left = {one: sum(other in circle for other in groups[one]["dependencies"]) for one in circle}
    feeds = collections.defaultdict(list)
    for one in circle:
        for other in groups[one]["dependencies"]:
            feeds[other].append(one)
    for one in begin:
        free = [one] if one in left else []
        while free:
            gone = free.pop()
            groups[gone]["dependencies"] = [other for other in groups[gone]["dependencies"] if other not in left]
            del left[gone]
            for other in feeds[gone]:
                if other in left:
                    left[other] -= 1
                    if not left[other]:
                        free.append(other)


def unsorted(needs):
    """What is left when all have gone that need none that is left."""
    missing, feeds = {one: 0 for one in needs}, {}
    for one, needed in needs.items():
        for other in needed:
            if other in missing:
                missing[one] += 1
                feeds.setdefault(other, []).append(one)
    free = [one for one, count in missing.items() if not count]
    while free:
        gone = free.pop()
        del missing[gone]
        for one in feeds.get(gone, ()):
            missing[one] -= 1
            if not missing[one]:
                free.append(one)
    return set(missing)
