"""Clients that own the training loop. Each trains the smallest model on the CPU for an epoch."""

import tempfile

import torch
from torch import nn
from torch.utils.data import DataLoader, default_collate

from tests.clients import BATCH_SIZE, client


class Probe(nn.Module):
    """A model with one weight. `loss` passes on the batch that the model was trained on."""

    def __init__(self, use=None):
        super().__init__()
        self.use = use
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, images):
        self.images = images
        return images.flatten(1)[:, :10] * self.weight

    def loss(self, scores, labels):
        self.use(self.images, labels)
        return nn.functional.cross_entropy(scores, labels)


@client("Lightning", "trainer.fit(module, DataLoader(ds, BATCH_SIZE, shuffle=True))", package="lightning")
def lightning(ds, use):
    from lightning import LightningModule, Trainer

    class Module(LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def training_step(self, batch, batch_index):
            images, labels = batch
            use(images, labels)
            return nn.functional.cross_entropy(images.flatten(1)[:, :10] * self.weight, labels)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.0)

    module = Module()
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(ds, BATCH_SIZE, shuffle=True))


@client("accelerate", "accelerator.prepare(DataLoader(ds, BATCH_SIZE, shuffle=True))", package="accelerate")
def accelerate(ds, use):
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    loader = accelerator.prepare(DataLoader(ds, BATCH_SIZE, shuffle=True))
    for images, labels in loader:
        use(images, labels)


@client(
    "Hugging Face `Trainer`",
    'dict(zip(("pixel_values", "labels"), default_collate(batch)))',
    package="transformers",
    verdict="with a collator",
)
def transformers(ds, use):
    from transformers import Trainer, TrainingArguments

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.probe = Probe(use)

        def forward(self, pixel_values, labels):
            scores = self.probe(pixel_values)
            return {"loss": self.probe.loss(scores, labels), "logits": scores}

    def collate(batch):
        return dict(zip(("pixel_values", "labels"), default_collate(batch)))  # noqa: B905 (always two)

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=1,
            per_device_train_batch_size=BATCH_SIZE,
            remove_unused_columns=False,  # it would take each batch apart
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        )
        Trainer(Model(), arguments, train_dataset=ds, data_collator=collate).train()


@client("skorch", "net.fit(ds, y=None)", package="skorch")
def skorch(ds, use):
    from skorch import NeuralNet

    class Net(NeuralNet):
        def get_loss(self, scores, labels, *args, **kwargs):
            return self.module_.loss(scores, labels)

    net = Net(
        Probe,
        module__use=use,
        criterion=nn.CrossEntropyLoss,
        max_epochs=1,
        batch_size=BATCH_SIZE,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    )
    net.fit(ds, y=None)


@client("ignite", "Engine(step).run(DataLoader(ds, BATCH_SIZE, shuffle=True))", package="ignite")
def ignite(ds, use):
    from ignite.engine import Engine

    def step(engine, batch):
        use(*batch)

    Engine(step).run(DataLoader(ds, BATCH_SIZE, shuffle=True))


@client("fastai", "DataLoaders(DataLoader(ds, bs=BATCH_SIZE, shuffle=True), [])", package="fastai")
def fastai(ds, use):
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader
    from fastai.learner import Learner

    dls = DataLoaders(DataLoader(ds, bs=BATCH_SIZE, shuffle=True), [])
    model = Probe(use)
    learner = Learner(dls, model, loss_func=model.loss)
    with learner.no_logging():
        learner.fit(1)


def make_keras_model(use):
    import keras

    class Model(keras.Model):
        def call(self, images):
            return images

        def train_step(self, batch):
            use(*batch)
            return {}

    model = Model()
    model.compile()
    return model


@client("Keras", "model.fit(DataLoader(ds, BATCH_SIZE, shuffle=True), verbose=0)", package="keras")
def keras(ds, use):
    model = make_keras_model(use)
    model.fit(DataLoader(ds, BATCH_SIZE, shuffle=True), verbose=0)


@client("Keras, arrays", "model.fit(images, labels, batch_size=BATCH_SIZE, verbose=0)", package="keras", loops=False)
def keras_arrays(ds, use):
    model = make_keras_model(use)
    images, labels = ds.tensors()
    model.fit(images, labels, batch_size=BATCH_SIZE, verbose=0)


@client("timm `create_loader`", "ds.transform = None", package="timm", verdict="pixels, and no transform", pixels=True)
def timm(ds, use):
    from timm.data import create_loader

    cpu = torch.device("cpu")
    loader = create_loader(ds, (3, 32, 32), BATCH_SIZE, mean=ds.mean, std=ds.std, device=cpu, pin_memory=False)
    ds.transform = None  # timm's own expects PIL images
    for images, labels in loader:
        use(images, labels)
