"""What a round opened, in a form that two of can be compared."""


def opened(outcome):
    """Survivors, values, weight and count of a round's sum; why there is none, if there is none."""
    if outcome.opened is None:
        return {who: str(why) for who, why in outcome.aborts.items()}
    return told(outcome.opened.survivors, outcome.opened.what)


def told(survivors, total):
    """The same of a sum that a test made by itself."""
    return tuple(survivors), total.value.tolist(), total.weight, total.count
