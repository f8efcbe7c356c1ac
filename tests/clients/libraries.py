"""Other libraries' datasets and loaders."""

from torch.utils.data import DataLoader, default_collate

from tests.clients import BATCH_SIZE, client


@client("torchdata `StatefulDataLoader`", "StatefulDataLoader(ds, BATCH_SIZE, shuffle=True)", package="torchdata")
def stateful_data_loader(ds, use):
    from torchdata.stateful_dataloader import StatefulDataLoader

    for images, labels in StatefulDataLoader(ds, BATCH_SIZE, shuffle=True):
        use(images, labels)


@client("torchdata nodes", "MapStyleWrapper(ds, sampler)", package="torchdata")
def torchdata_nodes(ds, use):
    from torch.utils.data import RandomSampler
    from torchdata.nodes import Batcher, Loader, Mapper, MapStyleWrapper

    sampler = RandomSampler(ds)
    samples = MapStyleWrapper(ds, sampler)
    for images, labels in Loader(Mapper(Batcher(samples, BATCH_SIZE, drop_last=False), default_collate)):
        use(images, labels)


@client("Grain", "MapDataset.source(ds).shuffle(seed=0).batch(BATCH_SIZE)", package="grain")
def grain(ds, use):
    from grain import MapDataset

    batches = MapDataset.source(ds).shuffle(seed=0).batch(BATCH_SIZE)
    for images, labels in batches:
        use(images, labels)


@client("Hugging Face `datasets`", "Dataset.from_generator(samples, cache_dir=folder)", package="datasets", loops=False)
def datasets(ds, use):
    import tempfile

    from datasets import Dataset

    def samples():
        for image, label in ds:
            yield {"image": image.numpy(), "label": label}

    with tempfile.TemporaryDirectory() as folder:
        copy = Dataset.from_generator(samples, cache_dir=folder)
        for batch in DataLoader(copy.with_format("torch"), BATCH_SIZE, shuffle=True):
            use(batch["image"], batch["label"])


@client("TensorDict", "TensorDict(image=images, label=labels, batch_size=len(ds))", package="tensordict", loops=False)
def tensordict(ds, use):
    from tensordict import TensorDict

    images, labels = ds.tensors()
    samples = TensorDict(image=images, label=labels, batch_size=len(ds))
    for batch in samples.split(BATCH_SIZE):
        use(batch["image"], batch["label"])


@client("Ray Data", "ray.data.from_torch(ds)", package="ray", loops=False)
def ray_data(ds, use):
    import ray

    ray.init(num_cpus=2, include_dashboard=False, logging_level="error")
    try:
        for batch in ray.data.from_torch(ds).iter_batches(batch_size=BATCH_SIZE):
            use(*map(list, zip(*batch["item"], strict=True)))
    finally:
        ray.shutdown()


@client("MONAI", "CacheDataset(ds, transform, progress=False)", package="monai", loops=False)
def monai(ds, use):
    from monai.data import CacheDataset

    def transform(sample):
        return sample

    cached = CacheDataset(ds, transform, progress=False)
    for images, labels in DataLoader(cached, BATCH_SIZE, shuffle=True):
        use(images, labels)


@client("Lightly", "LightlyDataset.from_torch_dataset(ds)", package="lightly")
def lightly(ds, use):
    from lightly.data import LightlyDataset

    ds = LightlyDataset.from_torch_dataset(ds)
    for images, labels, _ in DataLoader(ds, BATCH_SIZE, shuffle=True):
        use(images, labels)


@client(
    "WebDataset",
    "writer.write({'__key__': f'{number:06}', 'image.npy': image.numpy(), 'label.cls': label})",
    package="webdataset",
    loops=False,
)
def webdataset(ds, use):
    import io

    import webdataset

    file = io.BytesIO()
    writer = webdataset.TarWriter(file)
    for number, (image, label) in enumerate(ds):
        writer.write({"__key__": f"{number:06}", "image.npy": image.numpy(), "label.cls": label})
    writer.close()
    file.seek(0)
    use(*read_tar(file))


def read_tar(file):
    """Return the images and labels of a tar file in WebDataset's format."""
    import tarfile

    import numpy as np

    with tarfile.open(fileobj=file) as tar:
        content = {name: tar.extractfile(name).read() for name in tar.getnames()}
    import io

    images = np.stack([np.load(io.BytesIO(data)) for name, data in content.items() if name.endswith(".npy")])
    return images, [int(data) for name, data in content.items() if name.endswith(".cls")]


@client(
    "Albumentations",
    "flip(image=image.numpy().transpose(1, 2, 0))['image']",
    package="albumentations",
    verdict="with channels last",
    loops=False,
)
def albumentations(ds, use):
    from albumentations import HorizontalFlip

    flip = HorizontalFlip(p=1.0)
    for image, label in ds:
        flipped = flip(image=image.numpy().transpose(1, 2, 0))["image"]
        use(flipped[None, :, ::-1].transpose(0, 3, 1, 2), [label])


@client("Kornia", "flip(images)", package="kornia")
def kornia(ds, use):
    from kornia.augmentation import RandomHorizontalFlip

    flip = RandomHorizontalFlip(p=1.0)
    for images, labels in DataLoader(ds, BATCH_SIZE, shuffle=True):
        use(flip(images).flip(-1), labels)


@client("TorchMetrics", "mean.update(images)", package="torchmetrics")
def torchmetrics(ds, use):
    from torchmetrics import MeanMetric

    mean = MeanMetric()
    for images, labels in DataLoader(ds, BATCH_SIZE, shuffle=True):
        mean.update(images)
        use(images, labels)
