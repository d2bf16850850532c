"""Where the parts of a diff lie in its folder."""

from ft_audit.engine.store.arrays import safe_path


def group_folder(folder: str, group: str) -> str:
    """Return the folder of a stats group; one level down, since `a` and `a/b` may both be groups."""
    return f"{folder}/stats.zarr/{safe_path(group)}/arrays"


def index_folder(folder: str, path: str) -> str:
    """Return the folder of an array of the feature-major copy."""
    return f"{folder}/features.zarr/{safe_path(path)}"


def table_file(folder: str, name: str) -> str:
    """Return the file of a table."""
    return f"{folder}/tables/{safe_path(name)}.parquet"
