"""Clients that are part of torch and torchvision, which is imported late, as its import takes long."""

import torch
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    RandomSampler,
    StackDataset,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    random_split,
)

from tests.clients import BATCH_SIZE, client


class Tensors(TensorDataset):
    """The samples of a ShardDataset in RAM, for comparison, with the attributes that some clients use."""

    def __init__(self, ds):
        super().__init__(*ds.tensors())
        self.targets, self.mean, self.std = ds.targets, ds.mean, ds.std


@client("`DataLoader`", "DataLoader(ds, BATCH_SIZE, shuffle=True)")
def data_loader(ds, use):
    for images, labels in DataLoader(ds, BATCH_SIZE, shuffle=True):
        use(images, labels)


@client("`DataLoader`, forked workers", "DataLoader(ds, BATCH_SIZE, shuffle=True, num_workers=2)")
def forked_workers(ds, use):
    for images, labels in DataLoader(ds, BATCH_SIZE, shuffle=True, num_workers=2):
        use(images, labels)


@client("`DataLoader`, spawned workers", "DataLoader(ds, BATCH_SIZE, num_workers=2, multiprocessing_context='spawn')")
def spawned_workers(ds, use):
    for images, labels in DataLoader(ds, BATCH_SIZE, num_workers=2, multiprocessing_context="spawn"):
        use(images, labels)


@client("`BatchSampler` as `sampler`", "DataLoader(ds, batch_size=None, sampler=sampler)")
def batch_sampler(ds, use):
    sampler = BatchSampler(RandomSampler(ds), BATCH_SIZE, drop_last=False)
    for images, labels in DataLoader(ds, batch_size=None, sampler=sampler):
        use(images, labels)


@client("`WeightedRandomSampler`", "WeightedRandomSampler(1 / counts[labels], len(ds))", check="samples")
def weighted_random_sampler(ds, use):
    labels = torch.tensor(ds.targets)
    counts = labels.bincount()
    sampler = WeightedRandomSampler(1 / counts[labels], len(ds))
    for batch in DataLoader(ds, BATCH_SIZE, sampler=sampler):
        use(*batch)


@client("`DistributedSampler`", "DistributedSampler(ds, num_replicas=2, rank=rank)")
def distributed_sampler(ds, use):
    for rank in (0, 1):
        sampler = DistributedSampler(ds, num_replicas=2, rank=rank)
        for images, labels in DataLoader(ds, BATCH_SIZE, sampler=sampler):
            use(images, labels)


@client("`random_split`, `Subset`", "random_split(ds, [0.9, 0.1])")
def subset(ds, use):
    for part in random_split(ds, [0.9, 0.1]):
        for images, labels in DataLoader(part, BATCH_SIZE, shuffle=True):
            use(images, labels)


@client("`ConcatDataset`", "ConcatDataset([ds, ds])")
def concat_dataset(ds, use):
    for images, labels in DataLoader(ConcatDataset([ds, ds]), BATCH_SIZE, shuffle=True):
        use(images, labels)


@client("`StackDataset`", "StackDataset(sample=ds, index=range(len(ds)))")
def stack_dataset(ds, use):
    for batch in DataLoader(StackDataset(sample=ds, index=range(len(ds))), BATCH_SIZE, shuffle=True):
        use(*batch["sample"])


class Indexed(Dataset):
    """A user's wrapper: it adds the index to each sample."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        image, label = self.samples[index]
        return image, label, index


@client("a user's wrapper", "Indexed(ds)")
def user_wrapper(ds, use):
    for images, labels, _ in DataLoader(Indexed(ds), BATCH_SIZE, shuffle=True):
        use(images, labels)


@client("CutMix", "cutmix(*default_collate(batch))", check="sums")
def cutmix(ds, use):
    from torchvision.transforms import v2

    cutmix = v2.CutMix(num_classes=10)
    for images, labels in DataLoader(
        ds, BATCH_SIZE, shuffle=True, collate_fn=lambda batch: cutmix(*default_collate(batch))
    ):
        use(images, labels)


@client("MixUp", "mixup(images, labels)", check="sums")
def mixup(ds, use):
    from torchvision.transforms import v2

    mixup = v2.MixUp(num_classes=10)
    for images, labels in DataLoader(ds, BATCH_SIZE, shuffle=True):
        use(*mixup(images, labels))


@client("v2 transform of each sample", "[flip(sample) for sample in batch]")
def transform_in_collate(ds, use):
    from torchvision.transforms import v2

    flip = v2.RandomHorizontalFlip(1.0)
    for images, labels in DataLoader(
        ds, BATCH_SIZE, shuffle=True, collate_fn=lambda batch: default_collate([flip(sample) for sample in batch])
    ):
        use(images.flip(-1), labels)


@client("v2 transform of a batch", "flip(images)")
def transform_of_batch(ds, use):
    from torchvision.transforms import v2

    flip = v2.RandomHorizontalFlip(1.0)
    for images, labels in DataLoader(ds, BATCH_SIZE, shuffle=True):
        use(flip(images).flip(-1), labels)


@client("v2 transform as `transform`", "ds.transform = flip", loops=False)
def transform_argument(ds, use):
    from torchvision.transforms import v2

    flip = v2.RandomHorizontalFlip(1.0)
    ds.transform = flip  # as ShardDataset(path, transform=flip)
    for images, labels in DataLoader(ds, BATCH_SIZE, shuffle=True):
        use(images.flip(-1), labels)


@client(
    "v2 transforms of pixels",
    "v2.Compose([augment, v2.ToDtype(torch.float32, scale=True), v2.Normalize(ds.mean, ds.std)])",
    pixels=True,
)
def transform_of_pixels(ds, use):
    from torchvision.transforms import v2

    augment = v2.RandomHorizontalFlip(1.0)
    transform = v2.Compose([augment, v2.ToDtype(torch.float32, scale=True), v2.Normalize(ds.mean, ds.std)])
    for images, labels in DataLoader(ds, BATCH_SIZE, shuffle=True):
        use(transform(images).flip(-1), labels)


@client("`TensorDataset`", "TensorDataset(*ds.tensors())", loops=False)
def tensor_dataset(ds, use):
    for images, labels in DataLoader(TensorDataset(*ds.tensors()), BATCH_SIZE, shuffle=True):
        use(images, labels)


@client("everything on the device", "images[rows]", loops=False)
def on_device(ds, use):
    images, labels = ds.tensors()  # .to("cuda")
    for rows in torch.randperm(len(images)).split(BATCH_SIZE):
        use(images[rows], labels[rows])
