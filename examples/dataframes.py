"""The tasks of python_dataframe.yaml: plain functions of pandas and Dask, nothing of Remuda in them."""

import numpy
import pandas
from dask.distributed import get_client, secede, rejoin


def read_data(start, end):
    """A value for each day, as it might come from a file."""
    index = pandas.date_range(start, end, freq="D", name="timestamp")
    return pandas.DataFrame({"day": index.dayofyear, "value": numpy.arange(len(index)) % 7}, index=index)


def process_data(frame):
    """The averages of each year, each computed by a task of its own: this task is a client of the cluster it runs on."""
    client = get_client()
    years = sorted(set(frame.index.year))
    futures = client.map(lambda year, frame: frame[frame.index.year == year].mean(), years, frame=frame, pure=False)
    secede()  # others may run here while this one waits
    means = client.gather(futures)
    rejoin()
    return pandas.DataFrame(means, index=pandas.Index(years, name="year")).round(2)
