"""Which rows are not independent, by the groups that they were given and by their prompts together."""

import numpy as np
import polars as pl


def joined_groups(names: pl.Series, prompts: pl.Series) -> pl.Series:
    """The group of each of n rows, String [n]: rows of one name and rows of one prompt are together, over any number of steps.

    names : as given, null or empty where there is none; prompts : String, equal where the prompt is.
    A group is called by the least of its names, else by its prompt. Names are not believed against prompts: a column may hold
    sessions or rows, or be filled in for some rows only, and rows of one prompt are not independent whatever it says.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    names = names.cast(pl.String).replace("", None)
    given, size = names.is_not_null().to_numpy(), len(names)
    prompt, name = (keys.rank("dense").fill_null(1).cast(pl.Int64).to_numpy() - 1 for keys in (prompts, names))
    links = coo_matrix((np.ones(given.sum(), np.int8), (prompt[given], size + name[given])), shape=(2 * size, 2 * size))
    component = connected_components(links, directed=False)[1][prompt]
    rows = pl.DataFrame({"component": component, "name": names, "prompt": prompts})
    return rows.select(group=pl.coalesce(pl.col("name", "prompt").min().over("component")))["group"]
