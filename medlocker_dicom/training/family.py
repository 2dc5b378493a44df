"""The paper's seven backbones, and the bundle folders that they fill.

What the bundles have in common stands once, in ``templates/``:
``python -m medlocker_dicom.training.family monai_bundles`` writes their folders. Weights,
figures, version and changelog belong to each folder and are kept.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from medlocker_dicom.files import write_file

#: Fields of the metadata that are not of the template.
PUBLISHED = ("version", "changelog", "eval_metrics")
PUBLISHED_OURS = ("weights_sha256", "temperature")
FILES = {
    "configs/evaluate.json": "evaluate.json.j2",
    "configs/inference.json": "inference.json.j2",
    "configs/train.json": "train.json.j2",
    "docs/README.md": "README.md.j2",
    "docs/data_license.txt": "data_license.txt.j2",
    "LICENSE": "LICENSE.j2",
}


@dataclass(frozen=True)
class Architecture:
    """One backbone.

    Attributes
    ----------
    name
        Its function in ``medlocker_dicom.bundles.networks``.
    title
        The paper's name of it.
    cited, reference
        Who described it.
    hint_layers
        Submodules that learn the teacher's maps.
    stages
        Of the recipe: ``(size, epochs, hint, taught)`` each.
    input_size
        Side of the input in px.
    learning_rate
        The highest.
    halved
        Whether training in half precision is faster: not where most convolutions are depthwise.
    remark
        In what it differs from the paper's.
    batch_size
        Of the recipe.
    peers
        Bundles that teach it instead of the teacher, see ``peers.py``.
    """

    name: str
    title: str
    cited: str
    reference: str
    hint_layers: tuple[str, ...]
    stages: tuple[tuple[float, float, float, float], ...]
    input_size: int = 224
    learning_rate: float = 2e-3
    halved: bool = True
    remark: str = ""
    batch_size: int = 32
    peers: tuple[str, ...] = ()

    @property
    def samples_an_epoch(self) -> int:
        """Of the recipe: peers are for students that two cores teach, by less."""
        return 4096 if self.peers else 8192

    @property
    def views(self) -> int:
        """Of the recipe."""
        return 8192 if self.peers else 49152

    @property
    def peer_layers(self) -> tuple[str, ...]:
        """Hint layers of the first of its peers."""
        return next((a.hint_layers for a in FAMILY if a.name in self.peers[:1]), ())


def stages(epochs: dict[int, float]) -> tuple[tuple[float, float, float, float], ...]:
    """Stages of so many epochs at each size in px; 224 px are led less by the hints."""
    return tuple((size, count, 0.5 if size == 224 else 1.0, 2.0) for size, count in epochs.items())


#: Quick to ask, and trained with a teacher of their own.
PEERS = ("resnet18", "mobilenetv3")

FAMILY = (
    Architecture(
        "resnet18",
        "ResNet18",
        "He et al. 2016",
        "He K. et al. Deep residual learning for image recognition. CVPR 2016",
        ("layer1", "layer2", "layer3", "layer4"),
        stages({128: 6, 160: 8, 224: 4}),
    ),
    Architecture(
        "resnet50",
        "ResNet50",
        "He et al. 2016",
        "He K. et al. Deep residual learning for image recognition. CVPR 2016",
        ("layer1", "layer2", "layer3", "layer4"),
        stages({96: 4, 128: 2, 160: 1}),
        input_size=160,
        peers=PEERS,
    ),
    Architecture(
        "densenet121",
        "DenseNet121",
        "Huang et al. 2017",
        "Huang G. et al. Densely connected convolutional networks. CVPR 2017",
        ("features.denseblock1", "features.denseblock2", "features.denseblock3", "features.norm5"),
        stages({128: 5, 160: 2}),
        input_size=160,
        peers=PEERS,
    ),
    Architecture(
        "mobilenetv3",
        "MobileNetV3-Large",
        "Howard et al. 2019",
        "Howard A. et al. Searching for MobileNetV3. ICCV 2019",
        ("features.3", "features.6", "features.12", "features.16"),
        stages({128: 8, 160: 10, 224: 6}),
        halved=False,
    ),
    Architecture(
        "inceptionv3",
        "InceptionV3",
        "Szegedy et al. 2016",
        "Szegedy C. et al. Rethinking the Inception architecture for computer vision. CVPR 2016",
        ("maxpool1", "Mixed_5d", "Mixed_6e", "Mixed_7c"),
        stages({160: 5, 224: 1}),  # unpadded: smaller inputs leave its last maps next to nothing
        remark="Without the auxiliary head.",
        batch_size=16,
        peers=PEERS,
    ),
    Architecture(
        "vgg16",
        "VGG16",
        "Simonyan and Zisserman 2015",
        "Simonyan K., Zisserman A. Very deep convolutional networks for large-scale image "
        "recognition. ICLR 2015",
        ("features.13", "features.23", "features.33", "features.43"),
        stages({96: 4, 128: 1}),
        input_size=128,
        remark="With batch normalisation, and with the mean over all places instead of the two "
        "layers of 4096, which keeps its weights small.",
        batch_size=16,
        peers=PEERS,
    ),
    Architecture(
        "vit",
        "ViT",
        "Dosovitskiy et al. 2021",
        "Dosovitskiy A. et al. An image is worth 16x16 words: transformers for image recognition "
        "at scale. ICLR 2021",
        (*(f"encoder.layers.encoder_layer_{n}" for n in (2, 5, 8)), "encoder.ln"),
        stages({160: 10}),
        input_size=160,
        learning_rate=7e-4,
        remark="Of the tiny size (Touvron et al. 2021): patches of 16 px, 12 layers, 3 heads, "
        "192 channels.",
        batch_size=16,
        peers=PEERS,
    ),
)


def rendered(architecture: Architecture, published: dict[str, Any]) -> dict[str, str]:
    """Text of each file of a bundle.

    Parameters
    ----------
    architecture
        Which.
    published
        The folder's present metadata, whose published fields are kept; empty for a new folder.
    """
    environment = Environment(
        trim_blocks=True,
        loader=PackageLoader("medlocker_dicom.training"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  the values stand above, and none is HTML
    )
    derived = ("samples_an_epoch", "views", "peer_layers")
    values = asdict(architecture) | {name: getattr(architecture, name) for name in derived}
    texts = {path: environment.get_template(name).render(values) for path, name in FILES.items()}
    metadata = json.loads(environment.get_template("metadata.json.j2").render(values))
    metadata |= {name: published[name] for name in PUBLISHED if name in published}
    ours = published.get("medlocker", {})
    metadata["medlocker"] |= {name: ours[name] for name in PUBLISHED_OURS if name in ours}
    metadata.setdefault("version", "0.1.0")
    metadata.setdefault("changelog", {"0.1.0": "first weights"})
    return texts | {"configs/metadata.json": json.dumps(metadata, indent=4) + "\n"}


def write_family(root: Path) -> None:
    """Write the bundle folder of every backbone under ``root``."""
    for architecture in FAMILY:
        folder = root / f"dr_classifier_{architecture.name}"
        metadata = folder / "configs" / "metadata.json"
        published = json.loads(metadata.read_bytes()) if metadata.is_file() else {}
        for path, text in rendered(architecture, published).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            write_file(folder / path, text.encode())


if __name__ == "__main__":
    write_family(Path(sys.argv[1]))
