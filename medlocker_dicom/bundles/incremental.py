"""Inference that computes anew only what a change of the picture reaches (Nakandala et al. 2019).

A convolution sees a few px around each one. Where a picture differs in a small box from one whose
activations are known, so do the next activations in a box that is little larger. A network's first
nodes, of which this is true, are cut into parts, a convolution or pooling each, and what follows of
it sample by sample. As long as the boxes are small, a part is run on what is seen from its box; the
rest of the network is run whole. Each sample comes of the same sums as if all of it were.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto, NodeProto, TensorShapeProto, ValueInfoProto

    Floats = NDArray[np.float32]
    Box = tuple[slice, slice]
    Size = tuple[int, int]
    Session = Callable[[Mapping[str, Floats]], Floats]

#: Share of a tensor from which computing less of it saves less than it costs.
_WHOLE: Final = 0.8
#: Rests of a network that are kept open: each has nearly all of its weights.
_RESTS: Final = 2
#: Share of the largest answer by which parts may differ from the whole: more than rounding does.
_CLOSE: Final = 1e-5
#: px by which boxes are told apart, so that not each is cut another way.
_COARSE: Final = 16
_ONE_PX: Final = slice(0, 1), slice(0, 1)
_SLIDING: Final = {"Conv": 0.0, "AveragePool": 0.0, "MaxPool": -np.inf}  # and what is beyond
_BY_SAMPLE: Final = frozenset(
    "Add BatchNormalization Clip Concat Div Elu Erf Gelu HardSigmoid HardSwish Identity LeakyRelu "  # noqa: SIM905  as one reads it
    "Mul PRelu Relu Selu Sigmoid Softplus Sub Tanh".split()
)


@dataclass(frozen=True)
class Slide:
    """How a convolution or pooling goes along an axis.

    Attributes
    ----------
    reach
        Samples that it sees at a time, from the first to the last.
    stride, before, after
        Its step, and the samples beyond the ends.
    """

    reach: int
    stride: int
    before: int
    after: int

    def count(self, count: int) -> int:
        """How many answers there are."""
        return (count + self.before + self.after - self.reach) // self.stride + 1

    def touched(self, box: slice, count: int) -> slice:
        """Answers, of so many, that see some of a box; at least one, even if it does not."""
        first = -((self.reach - 1 - self.before - box.start) // self.stride)
        last = (box.stop - 1 + self.before) // self.stride
        start = min(max(first, 0), count - 1)
        return slice(start, min(max(last, start) + 1, count))

    def window(self, box: slice) -> slice:
        """Tell what is seen from a box of answers; it may go beyond the ends."""
        first = box.start * self.stride - self.before
        return slice(first, first + (box.stop - 1 - box.start) * self.stride + self.reach)


@dataclass(frozen=True)
class Part:
    """Some nodes of a network that follow each other.

    Attributes
    ----------
    nodes
        Where they are.
    slides
        How the first one goes along rows and columns; empty where all go by sample.
    beyond
        What it finds beyond the ends.
    sources
        Tensors that are read; the first by what slides, the others by sample.
    answer
        The tensor that is made.
    """

    nodes: slice
    slides: tuple[Slide, ...]
    beyond: float
    sources: tuple[str, ...]
    answer: str

    def sizes(self, sizes: Mapping[str, Size]) -> set[Size]:
        """Rows and columns of the answer, by each source; they must agree."""
        found = {sizes[name] for name in self.sources[bool(self.slides) :]}
        if self.slides:
            counts = zip(self.slides, sizes[self.sources[0]], strict=True)
            rows, columns = (slide.count(count) for slide, count in counts)
            found.add((rows, columns))
        return found

    def touched(self, boxes: Mapping[str, Box], size: Size) -> Box:
        """Box of the answer, of some size, that sees any of the boxes of its sources."""
        found = [boxes[name] for name in self.sources[bool(self.slides) :]]
        if self.slides:
            slid = zip(self.slides, boxes[self.sources[0]], size, strict=True)
            rows, columns = (slide.touched(one, count) for slide, one, count in slid)
            found.append((rows, columns))
        rows, columns = (
            slice(min(one.start for one in axis), max(one.stop for one in axis))
            for axis in zip(*found, strict=True)
        )
        return rows, columns


def parts_of(graph: GraphProto) -> list[Part]:
    """Cut a network up, up to the first node that may see more than a window."""
    flat = {one.name: _alike(one.dims) for one in graph.initializer}
    for node in graph.node:
        if not node.input:
            values = [one.t.dims for one in node.attribute if one.name == "value"]
            flat |= dict.fromkeys(node.output, bool(values) and _alike(values[0]))
    read = Counter(name for node in graph.node for name in node.input)
    known, parts = {graph.input[0].name}, list[Part]()
    for number, node in enumerate(graph.node):
        if not node.input:
            continue
        seen = tuple(dict.fromkeys(name for name in node.input if name in known))
        fixed = [name for name in node.input if name and name not in known]
        if node.domain or len(node.output) != 1 or not seen or not flat.keys() >= set(fixed):
            break
        answer, here = node.output[0], slice(number, number + 1)
        if node.op_type in _SLIDING:
            slides = _slides(node)
            if not slides:
                break
            parts.append(Part(here, slides, _SLIDING[node.op_type], seen, answer))
        elif node.op_type not in _BY_SAMPLE or not _by_sample(node, [flat[name] for name in fixed]):
            break
        elif parts and _goes_on(parts[-1], seen, read):
            last = parts.pop()
            others = [name for name in seen if name != last.answer]
            sources = tuple(dict.fromkeys([*last.sources, *others]))
            nodes = slice(last.nodes.start, number + 1)
            parts.append(Part(nodes, last.slides, last.beyond, sources, answer))
        else:
            parts.append(Part(here, (), 0.0, seen, answer))
        known.add(answer)
    return parts[:-1] if parts and parts[-1].answer == graph.output[0].name else parts


def _goes_on(part: Part, seen: Sequence[str], read: Mapping[str, int]) -> bool:
    """Whether what reads these tensors by sample can be of a part that was begun.

    Nothing else reads what that made; and it does not read otherwise what the part slides over.
    """
    return (
        part.answer in seen
        and read[part.answer] == 1
        and not (part.slides and part.sources[0] in seen)
    )


def _alike(shape: Sequence[int]) -> bool:
    """Whether a constant of that shape is the same for all rows and columns."""
    return int(np.prod(shape)) == 1 or (len(shape) > 2 and tuple(shape[-2:]) == (1, 1))


def _by_sample(node: NodeProto, alike: Sequence[bool]) -> bool:
    if node.op_type == "BatchNormalization":  # its constants are by channel
        return True
    axes = [one.i for one in node.attribute if one.name == "axis"]
    return all(alike) and axes in ([], [1])


def _slides(node: NodeProto) -> tuple[Slide, ...]:
    """How a convolution or pooling goes along rows and columns; empty where that is not known."""
    told: dict[str, Any] = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    kernel, pads = told.get("kernel_shape", ()), told.get("pads", (0, 0, 0, 0))
    uneven = node.op_type == "AveragePool" and any(pads) and not told.get("count_include_pad")
    placed = told.get("auto_pad", b"NOTSET") == b"NOTSET" and not told.get("ceil_mode")
    if len(kernel) != 2 or uneven or not placed:
        return ()
    strides, apart = told.get("strides", (1, 1)), told.get("dilations", (1, 1))
    return tuple(
        Slide((kernel[n] - 1) * apart[n] + 1, strides[n], pads[n], pads[n + 2]) for n in range(2)
    )


class Incremental:
    """A network in parts.

    Parameters
    ----------
    load
        Gives the network, which maps (B, 3, H, W) to its answers, with the channels of its tensors:
        without them the runtime has fewer ways to compute. It is not kept: its weights are in what
        was cut out of it.
    open_session
        Makes what is cut out, in a file, runnable, by several threads at a time.

    Attributes
    ----------
    parts
        As of `parts_of`.
    trusted
        By depth, whether so many parts and the rest were found to answer as the whole network does.
    """

    def __init__(
        self, load: Callable[[], ModelProto], open_session: Callable[[str], Session]
    ) -> None:
        self._load, self._open = load, open_session
        graph = _without_names(load()).graph
        self.picture = graph.input[0].name
        self.parts = parts_of(graph)
        self.trusted: dict[int, bool] = {}
        self._sessions: list[Session] = []
        self._rests: dict[int, tuple[tuple[str, ...], Session]] = {}

    def opened(self, depth: int) -> Opened:
        """Open so many parts, at least one, and the rest; of rests the last few are kept open."""
        if depth not in self._rests:
            # By way of files, so that at no time all weights are held several times over.
            with TemporaryDirectory(prefix="medlocker-") as folder:
                sources = self._cut(depth, Path(folder))
                for number in range(len(self._sessions), depth):
                    self._sessions.append(self._open(f"{folder}/{number}.onnx"))
                self._rests[depth] = sources, self._open(f"{folder}/rest.onnx")
            if len(self._rests) > _RESTS:
                del self._rests[next(iter(self._rests))]
        return Opened(self._sessions[:depth], *self._rests[depth])

    def _cut(self, depth: int, folder: Path) -> tuple[str, ...]:
        """Write the parts that are not open yet, and the rest; names of what that reads."""
        model, parts = _without_names(self._load()), self.parts[:depth]
        for number in range(len(self._sessions), depth):
            one = parts[number]
            piece = _piece(model, one.nodes, one.sources, one.answer, still=bool(one.slides))
            onnx.save(piece, folder / f"{number}.onnx")
        nodes = slice(parts[-1].nodes.stop, len(model.graph.node))
        wanted = {name for node in model.graph.node[nodes] for name in node.input}
        made = (self.picture, *(one.answer for one in parts))
        sources = tuple(name for name in made if name in wanted)
        answer = model.graph.output[0].name
        onnx.save(_piece(model, nodes, sources, answer), folder / "rest.onnx")
        return sources


@dataclass(frozen=True)
class Opened:
    """What runs: parts, which do not go beyond the ends; and the rest, with what it reads."""

    parts: list[Session]
    sources: tuple[str, ...]
    rest: Session


def _without_names(model: ModelProto) -> ModelProto:
    """Take away further names of weights: equal ones are exported once."""
    weights = {one.name for one in model.graph.initializer}
    named = [n for n in model.graph.node if n.op_type == "Identity" and n.input[0] in weights]
    same = {node.output[0]: node.input[0] for node in named}
    for node in named:
        model.graph.node.remove(node)
    for node in model.graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
    return model


def _piece(
    model: ModelProto, nodes: slice, sources: Sequence[str], answer: str, *, still: bool = False
) -> ModelProto:
    """Cut nodes out of a network; `still` ones do not go beyond the ends."""
    graph = model.graph
    chosen = [_without_pads(node) if still else node for node in graph.node[nodes]]
    used = {name for node in chosen for name in node.input}
    fixed = [node for node in graph.node if not node.input and node.output[0] in used]
    shapes = {one.name: one.type.tensor_type.shape for one in (*graph.input, *graph.value_info)}
    piece = helper.make_graph(
        fixed + [node for node in chosen if node.input],
        "piece",
        [_tensor(name, shapes.get(name)) for name in sources],
        [_tensor(answer, None)],
        [one for one in graph.initializer if one.name in used],
    )
    return helper.make_model(piece, opset_imports=model.opset_import, ir_version=model.ir_version)


def _tensor(name: str, shape: TensorShapeProto | None) -> ValueInfoProto:
    """Declare a tensor, of which only the number of channels is fixed."""
    known = None if shape is None else [None, shape.dim[1].dim_value or None, None, None]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, known)


def _without_pads(node: NodeProto) -> NodeProto:
    bare = type(node)()
    bare.CopyFrom(node)
    del bare.attribute[:]
    bare.attribute.extend(one for one in node.attribute if one.name != "pads")
    return bare


@dataclass(frozen=True)
class Change:
    """Where a tensor (1, C, H, W) differs, and what is there, (1, C, h, w)."""

    box: Box
    values: Floats


class Near:
    """Asks about pictures that differ from one in a box.

    Parameters
    ----------
    network
        In parts.
    whole
        The whole network: answers where they differ all over.
    picture
        The one, float32 (1, 3, H, W).
    workers
        How many pictures are answered for at a time.
    """

    def __init__(
        self,
        network: Incremental,
        whole: Callable[[Floats], Floats],
        picture: Floats,
        workers: int = 1,
    ) -> None:
        self._network, self._whole, self._workers = network, whole, workers
        self._known = {network.picture: picture}
        self._depths: dict[Size, int] = {}

    def __call__(self, inputs: Floats) -> Floats:
        """Map (B, 3, H, W) to the network's answers, as the whole network would."""
        (picture,) = self._known[self._network.picture]
        rows = [(row, _differing(np.asarray(row != picture))) for row in inputs]
        depths = [self._depth(box) for _, box in rows]
        order = np.argsort(depths, kind="stable")
        answers = [
            self._asked([rows[n] for n in order if depths[n] == depth], depth)
            for depth in sorted(set(depths))
        ]
        return np.concatenate(answers)[np.argsort(order)]

    def _asked(self, rows: Sequence[tuple[Floats, Box]], depth: int) -> Floats:
        """Answer for pictures (3, H, W) that differ in boxes, by so many parts and the rest.

        The first ones that are asked about at a depth are asked about whole, too: a network may
        mix what it is given together, or be of a kind that we do not know how to cut.
        """
        trusted = self._network.trusted
        if trusted.get(depth, False):
            with suppress(Exception):  # as where there is no room to open again what was closed
                return self._shared_out(rows, depth)
        whole = self._whole(np.stack([row for row, _ in rows]))
        if depth and depth not in trusted:
            trusted[depth] = self._agrees(rows, whole, depth)
        return whole

    def _agrees(self, rows: Sequence[tuple[Floats, Box]], whole: Floats, depth: int) -> bool:
        """Whether these rows, beside one that differs nowhere, are answered as they are whole."""
        (picture,) = self._known[self._network.picture]
        try:
            found = self._answered([(picture, _ONE_PX), *rows], self._opened(depth))[1:]
        except Exception:  # noqa: BLE001  neither networks nor runtime nor disk have a common base
            return False
        close = _CLOSE * max(float(np.abs(whole).max()), 1e-30)
        return found.shape == whole.shape and bool(np.abs(found - whole).max() <= close)

    def _shared_out(self, rows: Sequence[tuple[Floats, Box]], depth: int) -> Floats:
        opened, share = self._opened(depth), -(-len(rows) // self._workers)
        chunks = [rows[start : start + share] for start in range(0, len(rows), share)]
        with ThreadPoolExecutor(self._workers) as pool:
            return np.concatenate(list(pool.map(lambda one: self._answered(one, opened), chunks)))

    def _opened(self, depth: int) -> Opened:
        """Open so many parts, and know what they say of the picture."""
        opened = self._network.opened(depth)
        for part, session in zip(self._network.parts, opened.parts, strict=False):
            if part.answer not in self._known:
                sizes = {name: _size(self._known[name]) for name in part.sources}
                (size,) = part.sizes(sizes)
                self._known[part.answer] = self._run(part, session, _everything(size), {})
        return opened

    def _answered(self, rows: Sequence[tuple[Floats, Box]], opened: Opened) -> Floats:
        changed = [
            self._changes(Change(box, row[np.newaxis, ..., *box]), opened) for row, box in rows
        ]
        seen = {}
        for name in opened.sources:
            known = self._known[name]
            all_of_it = _everything(_size(known))
            seen[name] = np.concatenate([_seen(known, all_of_it, 0, one[name]) for one in changed])
        return opened.rest(seen)

    def _changes(self, change: Change, opened: Opened) -> dict[str, Change]:
        """Compute what becomes of a change of the picture."""
        changes = {self._network.picture: change}
        for part, session in zip(self._network.parts, opened.parts, strict=False):
            boxes = {name: changes[name].box for name in part.sources}
            box = part.touched(boxes, _size(self._known[part.answer]))
            changes[part.answer] = Change(box, self._run(part, session, box, changes))
        return changes

    def _run(self, part: Part, session: Session, box: Box, changes: Mapping[str, Change]) -> Floats:
        """Compute a box of a part's answer."""
        windows = dict.fromkeys(part.sources, box)
        if part.slides:
            rows, columns = (s.window(one) for s, one in zip(part.slides, box, strict=True))
            windows[part.sources[0]] = rows, columns
        return session(
            {
                name: _seen(self._known[name], window, part.beyond, changes.get(name))
                for name, window in windows.items()
            }
        )

    def _depth(self, box: Box) -> int:
        """Tell how many parts are worth it for a box, as if it were in the middle."""
        rows, columns = (-(-one // _COARSE) * _COARSE for one in _extent(box))
        if (rows, columns) not in self._depths:
            self._depths[rows, columns] = self._depth_in_the_middle((rows, columns))
        return self._depths[rows, columns]

    def _depth_in_the_middle(self, size: Size) -> int:
        picture = self._network.picture
        sizes = {picture: _size(self._known[picture])}
        first, second = (
            slice((side - one) // 2, (side - one) // 2 + one)
            for one, side in zip(size, sizes[picture], strict=True)
        )
        boxes = {picture: (first, second)}
        for depth, part in enumerate(self._network.parts):
            possible = part.sizes(sizes)
            if len(possible) != 1:
                return depth
            (whole,) = possible
            box = part.touched(boxes, whole)
            if np.prod(_extent(box)) > _WHOLE * np.prod(whole):
                return depth
            sizes[part.answer], boxes[part.answer] = whole, box
        return len(self._network.parts)


def _size(tensor: Floats) -> Size:
    return tensor.shape[2], tensor.shape[3]


def _everything(size: Size) -> Box:
    return slice(0, size[0]), slice(0, size[1])


def _extent(box: Box) -> Size:
    return box[0].stop - box[0].start, box[1].stop - box[1].start


def _differing(differs: NDArray[np.bool_]) -> Box:
    """Box of what is True in (C, H, W); of one px where nothing is."""
    there = np.asarray(differs.any(0))
    rows, columns = np.flatnonzero(there.any(1)), np.flatnonzero(there.any(0))
    if not len(rows):
        return _ONE_PX
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _seen(whole: Floats, window: Box, beyond: float, change: Change | None) -> Floats:
    """Cut a window, which may go beyond the ends, out of a tensor with a change."""
    inside, there = _common(window, _everything(_size(whole)))
    if inside == window:
        result = whole[..., *window].copy()
    else:
        result = np.full((*whole.shape[:2], *_extent(window)), beyond, np.float32)
        result[..., *there] = whole[..., *inside]
    if change is not None:
        both, there = _common(window, change.box)
        _, here = _common(change.box, both)
        result[..., *there] = change.values[..., *here]
    return result


def _common(window: Box, box: Box) -> tuple[Box, Box]:
    """Tell what a window and a box share, which may be nothing; and where that is in the window."""
    starts = [max(one.start, other.start) for one, other in zip(window, box, strict=True)]
    stops = [min(one.stop, other.stop) for one, other in zip(window, box, strict=True)]
    y, x = (slice(start, max(start, stop)) for start, stop in zip(starts, stops, strict=True))
    rows, columns = (
        slice(one.start - w.start, one.stop - w.start)
        for one, w in zip((y, x), window, strict=True)
    )
    return (y, x), (rows, columns)
