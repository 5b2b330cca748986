"""One command that trains a model, measures it and puts it into `models/`.

    python models/training/photographs.py photographs
    python models/training/train.py edsr-lite-x3 --photographs photographs --set5 Set5 --work runs

It goes on where it was stopped: everything is kept in `--work` every few minutes. On a machine with a CUDA device
that is used. `--set5` holds `HR` and `LRx3`; the set carries no licence, so the project does not contain it.
"""

import argparse
import dataclasses
import os
import sys
import time
from pathlib import Path

import crops
import evaluation
import torch
from batches import batches
from export import publish
from network import Edsr
from recipes import RECIPES, Recipe
from torch import Tensor
from torch.nn import functional

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

_AVERAGE_DECAY = 0.999
_LARGEST_GRADIENT = 1.0
_SECONDS_BETWEEN_CHECKPOINTS = 120


class Training:
    """A network on its way: weights, their moving average, the optimiser and the number of steps done."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.recipe = recipe
        self.device = device
        self.network = Edsr(recipe.blocks, recipe.features, recipe.scale).to(device, memory_format=torch.channels_last)
        self.average = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        # In place, so that the weights keep their names.
        self.network.compile()
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=recipe.rate(0), fused=True)
        self.steps = 0
        self.seconds = 0.0

    def step(self, low: Tensor, high: Tensor) -> Tensor:
        """One step of the optimiser; the mean absolute error before it."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate(self.steps)
        with torch.autocast(self.device.type, torch.bfloat16):
            enlarged = self.network(low)
        loss = functional.l1_loss(enlarged.float(), high)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), _LARGEST_GRADIENT)
        self.optimiser.step()
        self.steps += 1
        # The average forgets the beginning sooner than its decay alone would.
        decay = min(_AVERAGE_DECAY, (1 + self.steps) / (10 + self.steps))
        values = self.network.state_dict()
        torch._foreach_lerp_(list(self.average.values()), [values[name] for name in self.average], 1 - decay)
        return loss.detach()

    def averaged(self) -> Edsr:
        """The network with averaged weights, in fp32 on the CPU."""
        network = Edsr(self.recipe.blocks, self.recipe.features, self.recipe.scale)
        network.load_state_dict(self.average)
        return network.eval()

    def save(self, path: str) -> None:
        """Keep everything in a file, whole or not at all."""
        kept = {
            "network": self.network.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "steps": self.steps,
            "seconds": self.seconds,
        }
        torch.save(kept, path + ".part")
        os.replace(path + ".part", path)

    def resume(self, path: str) -> None:
        """Go on from a file of `save`."""
        kept = torch.load(path, map_location=self.device, weights_only=True)
        self.network.load_state_dict(kept["network"])
        self.average = kept["average"]
        self.optimiser.load_state_dict(kept["optimiser"])
        self.steps, self.seconds = kept["steps"], kept["seconds"]

    def begin_with(self, path: str) -> None:
        """Take the averaged weights of another training."""
        self.network.load_state_dict(torch.load(path, map_location=self.device, weights_only=True)["average"])
        self.average = {name: value.detach().clone() for name, value in self.network.state_dict().items()}


def train(
    name: str, recipe: Recipe, photographs: str, work: str, set5: Path | None, seed: int = 1
) -> tuple[Edsr, float]:
    """The network after all its steps and how many seconds they took; progress on stderr, state in `work`."""
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    checkpoint = os.path.join(work, f"{name}.pt")
    training = Training(recipe, device)
    if os.path.exists(checkpoint):
        training.resume(checkpoint)
    elif recipe.begins_with:
        training.begin_with(os.path.join(work, f"{recipe.begins_with}.pt"))
    drawn = batches(crops.load(photographs, recipe.scale), recipe, device, seed + training.steps)
    loss = torch.zeros(())
    began = kept = time.monotonic()
    while training.steps < recipe.steps:
        loss = loss.lerp(training.step(*next(drawn)).cpu(), 0.01)
        now = time.monotonic()
        if now - kept > _SECONDS_BETWEEN_CHECKPOINTS or training.steps == recipe.steps:
            training.seconds, began, kept = training.seconds + now - began, now, now
            training.save(checkpoint)
            decibels = f"{evaluation.of_network(training.averaged(), set5):.3f} dB" if set5 else ""
            sys.stderr.write(f"{name} {training.steps} steps {training.seconds:.0f} s loss {loss:.5f} {decibels}\n")
    return training.averaged(), training.seconds


def main() -> None:
    """Serve the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--photographs", required=True, help="what photographs.py fetched")
    parser.add_argument("--work", default="runs", help="folder for checkpoints")
    parser.add_argument("--set5", type=Path)
    parser.add_argument("--steps", type=int, help="in place of the recipe's")
    parser.add_argument("--machine", default="", help="what it runs on, for the card: 'two cores of ...'")
    given = parser.parse_args()
    recipe = RECIPES[given.name]
    if given.steps:
        recipe = dataclasses.replace(recipe, cycles=((given.steps, recipe.cycles[0][1]),))
    os.makedirs(given.work, exist_ok=True)
    network, seconds = train(given.name, recipe, given.photographs, given.work, given.set5)
    history = f"That took {seconds / 60:.0f} minutes" + (f" on {given.machine}." if given.machine else ".")
    sys.stderr.write(publish(given.name, recipe, network, history, given.set5) + "\n")


if __name__ == "__main__":
    main()
