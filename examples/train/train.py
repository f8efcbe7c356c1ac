"""Train a small CNN on the shards, and log how it goes: the stage `train` of dvc.yaml."""

import csv
from pathlib import Path

import dvc.api
import torch
from dvclive import Live
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision import transforms

from shardset import ShardDataset


def make_model(image_shape: tuple[int, int, int], num_classes: int) -> nn.Sequential:
    def block(num_in: int, num_out: int, stride: int = 1) -> nn.Sequential:
        convolution = nn.Conv2d(num_in, num_out, stride + 2, stride, padding=1, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(num_out), nn.ReLU())

    channels, side, _ = image_shape  # shards hold square images
    return nn.Sequential(
        block(channels, 32, stride=max(1, side // 32)),  # about 32 x 32, so that large images train as fast
        nn.MaxPool2d(2),  # 16 x 16
        block(32, 64),
        nn.MaxPool2d(2),  # 8 x 8
        block(64, 128),
        nn.AdaptiveMaxPool2d(4),  # 4 x 4, whatever the size of the images
        nn.Flatten(),
        nn.Linear(128 * 4 * 4, num_classes),
    ).to(memory_format=torch.channels_last)  # a third faster on a CPU


@torch.inference_mode()
def predict(model: nn.Module, data: ShardDataset) -> list[int]:
    model.eval()
    return torch.cat([model(images).argmax(dim=1) for images, _ in DataLoader(data, batch_size=500)]).tolist()


def accuracy(predicted: list[int], data: ShardDataset) -> float:
    return sum(map(int.__eq__, predicted, data.targets)) / len(data)


def main() -> None:
    params = dvc.api.params_show()
    torch.manual_seed(params["seed"])
    train = ShardDataset("data/shards", "train")
    side = train.manifest.image_shape[-1]
    train.transform = transforms.Compose([transforms.RandomCrop(side, side // 8), transforms.RandomHorizontalFlip()])
    split = "test" if "test" in train.manifest.splits else "val"
    test = ShardDataset("data/shards", split)
    without_leaks = ShardDataset("data/shards", split, indices="data/without_leaks.csv")
    loader = DataLoader(
        train, batch_size=params["batch_size"], shuffle=True, drop_last=len(train) > params["batch_size"]
    )

    model = make_model(train.manifest.image_shape, len(train.classes))
    optimizer = torch.optim.SGD(model.parameters(), lr=params["lr"], momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, params["lr"], total_steps=params["epochs"] * len(loader))

    with Live("dvclive", save_dvc_exp=False, dvcyaml=None) as live:
        for _ in range(params["epochs"]):
            model.train()
            total_loss = 0.0
            for images, labels in loader:
                loss = cross_entropy(model(images), labels, label_smoothing=0.1)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total_loss += loss.item()
            predicted = predict(model, test)
            live.log_metric("train/loss", total_loss / len(loader))
            live.log_metric(f"{split}/accuracy", accuracy(predicted, test))
            live.log_metric(f"{split}/accuracy_without_leaks", accuracy(predict(model, without_leaks), without_leaks))
            live.next_step()

    torch.save(model.state_dict(), "model.pt")
    with Path("confusion.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["actual", "predicted"])
        rows.writerows((test.classes[a], test.classes[p]) for a, p in zip(test.targets, predicted, strict=True))


if __name__ == "__main__":
    main()
