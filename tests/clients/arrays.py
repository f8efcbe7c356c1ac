"""Clients that take complete arrays. Each passes on what it was given, or what it read back."""

import io

import numpy as np

from tests.clients import BATCH_SIZE, client


@client("JAX", "map(jnp.asarray, ds.tensors())", package="jax", loops=False)
def jax_arrays(ds, use):
    import jax.numpy as jnp

    images, labels = map(jnp.asarray, ds.tensors())
    for start in range(0, len(images), BATCH_SIZE):
        use(images[start : start + BATCH_SIZE], labels[start : start + BATCH_SIZE])


@client("JAX, batch by batch", "jax.tree.map(jnp.asarray, batch)", package="jax")
def jax_batches(ds, use):
    import jax
    import jax.numpy as jnp
    from torch.utils.data import DataLoader

    for batch in DataLoader(ds, BATCH_SIZE, shuffle=True):
        use(*jax.tree.map(jnp.asarray, batch))


@client("scikit-learn", "KNeighborsClassifier(1).fit(images.flatten(1), labels)", package="sklearn", loops=False)
def sklearn(ds, use):
    from sklearn.neighbors import KNeighborsClassifier

    images, labels = ds.tensors()
    model = KNeighborsClassifier(1).fit(images.flatten(1), labels)
    use(images, model.predict(images.flatten(1)))


@client("XGBoost", "xgboost.DMatrix(images.flatten(1).numpy(), labels.numpy())", package="xgboost", loops=False)
def xgboost(ds, use):
    import xgboost

    images, labels = ds.tensors()
    data = xgboost.DMatrix(images.flatten(1).numpy(), labels.numpy())
    use(data.get_data().toarray().reshape(images.shape), data.get_label())


@client("LightGBM", "lightgbm.Dataset(pixels, labels.numpy(), free_raw_data=False)", package="lightgbm", loops=False)
def lightgbm(ds, use):
    import lightgbm

    images, labels = ds.tensors()
    pixels = images.flatten(1).numpy()
    data = lightgbm.Dataset(pixels, labels.numpy(), free_raw_data=False)
    data.construct()
    use(data.get_data().reshape(images.shape), data.get_label())


@client("Cleanlab", "find_label_issues(np.array(ds.targets), probabilities)", package="cleanlab", loops=False)
def cleanlab(ds, use):
    from cleanlab.filter import find_label_issues

    images, labels = ds.tensors()
    probabilities = np.eye(10)[labels] * 0.9 + 0.01
    probabilities[0] = np.roll(probabilities[0], 1)  # a model that is sure that the first label is wrong
    found = find_label_issues(np.array(ds.targets), probabilities)
    assert found.nonzero()[0].tolist() == [0]
    use(images, labels)


@client("pandas", "pd.Series(ds.targets)", package="pandas", loops=False)
def pandas(ds, use):
    import pandas as pd

    labels = pd.Series(ds.targets)
    use(ds.tensors()[0], labels)


@client("Polars", "pl.DataFrame({'label': ds.targets})", package="polars", loops=False)
def polars(ds, use):
    import polars as pl

    table = pl.DataFrame({"label": ds.targets})
    use(ds.tensors()[0], table["label"])


@client("DuckDB, Arrow", "pa.table({'label': ds.targets})", package="duckdb", loops=False)
def duckdb(ds, use):
    import duckdb
    import pyarrow as pa

    table = pa.table({"label": ds.targets})
    labels = duckdb.arrow(table).fetchnumpy()["label"]
    use(ds.tensors()[0], labels)


@client("h5py", "file.create_dataset('images', data=images)", package="h5py", loops=False)
def h5py(ds, use):
    import h5py

    images, labels = ds.tensors()
    with h5py.File(io.BytesIO(), "w") as file:
        file.create_dataset("images", data=images)
        file.create_dataset("labels", data=labels)
        use(file["images"], file["labels"])


@client("Zarr", "group.create_array('images', data=images.numpy())", package="zarr", loops=False)
def zarr(ds, use):
    import zarr

    images, labels = ds.tensors()
    group = zarr.group(zarr.storage.MemoryStore())
    group.create_array("images", data=images.numpy())
    group.create_array("labels", data=labels.numpy())
    use(group["images"], group["labels"])


@client("safetensors", "save({'images': images, 'labels': labels})", package="safetensors", loops=False)
def safetensors(ds, use):
    from safetensors.torch import load, save

    images, labels = ds.tensors()
    loaded = load(save({"images": images, "labels": labels}))
    use(loaded["images"], loaded["labels"])
