"""A pretended CUDA device on a machine without one: CUDA's rules, the CPU's numbers.

After `pretend()` torch believes in one CUDA device for as long as the process lives. A tensor on it wraps a
CPU tensor, and the CPU computes every operation. Refused is what a card refuses: operations over tensors of
both devices, `.numpy()`, and under `torch.cuda.set_sync_debug_mode("error")` what makes the host wait (item,
copies to and from the CPU, nonzero, masks). A CUDAGraph records operations without effect, and `replay()`
computes them again on the same tensors. Times, memory, streams' order, cuDNN's choices, generators of the
card and CUDA's rounding are not imitated. This folder on PYTHONPATH gives a process and its children the
card. Import this before torch. Needs a C compiler (`cc`), and torch built for CUDA; written against 2.14.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import hashlib
import os
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def _answering_runtime() -> ctypes.CDLL:
    """Compile card.c once per user and version, and put its names before the CUDA runtime's."""
    source = Path(__file__).with_name("card.c").read_bytes()
    folder = Path(tempfile.gettempdir()) / f"pretended-card-{os.getuid()}"
    library = folder / f"{hashlib.sha256(source).hexdigest()[:12]}.so"
    if not library.exists():
        folder.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as made:
            built = Path(made) / "card.so"
            # Under the driver's name: torch opens libcuda.so.1 and finds that it is loaded already.
            subprocess.run(
                ["cc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-x", "c", "-", "-o", str(built)],
                input=source,
                check=True,
            )
            built.replace(library)
    return ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


_RUNTIME = _answering_runtime()

import torch  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves, tree_map  # noqa: E402

CUDA = torch.device("cuda", 0)

WAITING = {f"aten::{name}" for name in (
    "_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique_dim", "_unique2",
    "unique_consecutive", "repeat_interleave.Tensor",
)}  # fmt: skip
"""Operations whose result's value or shape the host must know."""

INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
"""Operations that take an index from the CPU, and copy it."""

SILENT = {"aten::native_batch_norm": ("running_mean", "running_var")}
"""Arguments that an operation writes though its schema does not say so."""


class OnCard(torch.Tensor):
    """A tensor on the card; `held` has its numbers."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls: type[OnCard], held: torch.Tensor) -> OnCard:
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            layout=held.layout, device=CUDA, requires_grad=False,
        )  # fmt: skip
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return card.__torch_dispatch__(func, types, args, kwargs)

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnCard({self.held!r})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        card.wait("copy to the CPU")
        # Saved as a tensor of the CPU.
        return self.held.detach().__reduce_ex__(protocol)  # type: ignore[no-untyped-call]

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied = self.detach().clone(memory_format=torch.preserve_format)
        if isinstance(self, torch.nn.Parameter):
            copied = torch.nn.Parameter(copied, self.requires_grad)
        return memo.setdefault(id(self), copied)

    def tolist(self) -> Any:
        card.wait("copy to the CPU")
        return self.held.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    __array__ = numpy

    def data_ptr(self) -> int:
        return self.held.data_ptr()


class Card(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Computes what is asked of the device, and keeps what a capture records."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.capturing: Graph | None = None
        self.strict = False

    def set_sync_debug_mode(self, mode: int | str) -> None:
        """As torch's, warning included."""
        warnings.warn("Synchronization debug mode is a prototype feature", UserWarning, stacklevel=2)
        self.strict = mode in ("error", 2)

    def wait(self, why: str) -> None:
        """The host waits for the device."""
        if self.capturing is not None:
            raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({why})")
        if self.strict:
            raise RuntimeError(f"called a synchronizing CUDA operation ({why})")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation, of either device."""
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        on_card = [tensor for tensor in tensors if isinstance(tensor, OnCard)]
        target = kwargs.get("device")
        to_card = target is not None and torch.device(target).type == "cuda"
        name = func._schema.name
        if not on_card and not to_card:
            with torch._C._DisableTorchDispatch():
                return func(*args, **kwargs)
        self._apply_rules(func, args, kwargs, tensors, to_card)
        kwargs = kwargs if target is None else {**kwargs, "device": "cpu"}
        raw_args, raw_kwargs = tree_map(_held, args), tree_map(_held, kwargs)
        written = [a for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
        with torch._C._DisableTorchDispatch():
            if self.capturing is not None:
                self.capturing.keep(func, raw_args, raw_kwargs)
            result = _computed(func, raw_args, raw_kwargs)
        if self.capturing is not None:
            self.capturing.record(func, raw_args, raw_kwargs, result, in_place=bool(written))
        if name == "aten::_to_copy" and on_card and target is not None and not to_card:
            return result.clone() if result is args[0].held else result
        return _as_written(func, args, kwargs, result) if written else tree_map(_on_card, result)

    def _apply_rules(self, func: Any, args: Any, kwargs: Any, tensors: list[Any], to_card: bool) -> None:
        name, from_cpu = func._schema.name, [tensor for tensor in tensors if not isinstance(tensor, OnCard)]
        on_card = len(from_cpu) < len(tensors)
        if name == "aten::copy_":
            if not isinstance(args[0], OnCard):
                self.wait("copy to the CPU")
            elif not isinstance(args[1], OnCard):
                self.copy_from_cpu(args[1])
        elif name == "aten::_to_copy":
            if on_card and kwargs.get("device") is not None and not to_card:
                self.wait("copy to the CPU")
            elif not on_card:
                self.copy_from_cpu(args[0])
        elif name in INDEXING and isinstance(args[0], OnCard):
            for tensor in from_cpu:
                self.copy_from_cpu(tensor)
            if any(getattr(index, "dtype", None) in (torch.bool, torch.uint8) for index in args[1]):
                self.wait("a mask as index")
        elif on_card and any(tensor.dim() for tensor in from_cpu):
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but got cuda:0 and cpu! ({name})"
            )
        if on_card and (name in WAITING or f"{name}.{func._schema.overload_name}" in WAITING):
            self.wait(name)

    def copy_from_cpu(self, tensor: torch.Tensor) -> None:
        if tensor.dim():  # the host does not wait for a number's copy
            self.wait("copy from the CPU")


card = Card()


class Graph:
    """What a capture recorded; stands for torch.cuda.CUDAGraph."""

    def __init__(self) -> None:
        self._calls: list[Any] = []
        self._before: dict[Any, tuple[torch.Tensor, torch.Tensor]] = {}
        self._made: set[int] = set()

    @contextlib.contextmanager
    def capture(self, pool: Any = None, stream: Any = None, capture_error_mode: str = "") -> Iterator[None]:
        """Stands for torch.cuda.graph."""
        if card.capturing is not None:
            raise RuntimeError("one capture at a time")
        card.capturing = self
        try:
            yield
        finally:
            card.capturing = None
            for tensor, copy in self._before.values():
                tensor.copy_(copy)  # a capture has no effect,
            for _, _, _, results, in_place in self._calls:
                for result in results:  # and leaves nothing to read before the first replay
                    if not in_place and isinstance(result, torch.Tensor) and result.is_floating_point():
                        result.fill_(float("nan"))

    def replay(self) -> None:
        with torch._C._DisableTorchDispatch(), torch.no_grad():
            for func, args, kwargs, results, in_place in self._calls:
                fresh = _computed(func, args, kwargs)
                if not in_place:
                    for result, new in zip(results, tree_leaves(fresh), strict=True):
                        if isinstance(result, torch.Tensor):
                            result.copy_(new)

    def keep(self, func: Any, args: Any, kwargs: dict[str, Any]) -> None:
        """Remember what an operation is about to write, if it was there before the capture."""
        values = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
        for argument in func._schema.arguments:
            silent = argument.name in SILENT.get(func._schema.name, ())
            if silent or (argument.alias_info is not None and argument.alias_info.is_write):
                for tensor in tree_leaves(values.get(argument.name)):
                    if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self._made:
                        place = (tensor.data_ptr(), tensor.shape, tensor.stride())
                        self._before.setdefault(place, (tensor, tensor.clone()))

    def record(self, func: Any, args: Any, kwargs: dict[str, Any], result: Any, *, in_place: bool) -> None:
        if not in_place and any(returned.alias_info is not None for returned in func._schema.returns):
            return  # a view
        results = tree_leaves(result)
        if not in_place:
            self._made |= {t.untyped_storage()._cdata for t in results if isinstance(t, torch.Tensor)}
        self._calls.append((func, args, kwargs, results, in_place))


class Event:
    """Stands for torch.cuda.Event, with the host's clock."""

    def __init__(self, enable_timing: bool = False, **_: Any) -> None:
        self._at = 0.0

    def record(self, stream: Any = None) -> None:
        self._at = time.perf_counter()

    def elapsed_time(self, end: Event) -> float:
        return 1000 * (end._at - self._at)


def stream(*_: Any, **__: Any) -> SimpleNamespace:
    """Stands for torch.cuda.Stream; the device does everything at once."""
    return SimpleNamespace(device=CUDA, cuda_stream=0, wait_stream=lambda other: None)


def _attention(*arguments: Any, **options: Any) -> Any:
    """torch's choice between its kernels asks the driver; this is the one that a CPU can compute."""
    return torch.ops.aten._scaled_dot_product_attention_math(*arguments, **options)[0]


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation of the CPU, but for one that its library gets wrong.

    The weight's gradient of a convolution in bfloat16 is not written at all, and so whatever lay there, where
    taps meet no pixel (maps of one pixel, oneDNN on AVX512-BF16).
    """
    if func._schema.name != "aten::convolution_backward" or args[0].dtype != torch.bfloat16:
        return func(*args, **kwargs)
    exact = func(*tree_map(lambda x: x.float() if isinstance(x, torch.Tensor) else x, args), **kwargs)
    return tuple(None if value is None else value.to(torch.bfloat16) for value in exact)


def _held(value: Any) -> Any:
    return value.held if isinstance(value, OnCard) else value


def _on_card(value: Any) -> Any:
    return OnCard(value) if isinstance(value, torch.Tensor) else value


def _as_written(func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> Any:
    """What an operation in place gives back: the tensors that came in, where its schema says so."""
    values = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
    written = [a for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    came_in = {frozenset(a.alias_info.before_set): values.get(a.name) for a in written}
    returns = func._schema.returns
    results = result if len(returns) > 1 else (result,) * len(returns)
    out = tuple(
        tree_map(_on_card, value)
        if returned.alias_info is None
        else came_in[frozenset(returned.alias_info.before_set)]
        for returned, value in zip(returns, results, strict=True)
    )
    return out if len(out) > 1 else out[0] if out else None


def pretend() -> None:
    """Give this process one pretended CUDA device."""
    known = {"total_memory": 80 * 2**30, "major": 9, "minor": 0, "multi_processor_count": 132}
    properties = SimpleNamespace(name="pretended card", **known)
    nothing = {name: lambda *_: None for name in (
        "_lazy_init", "init", "set_device", "reset_peak_memory_stats", "empty_cache", "manual_seed",
        "manual_seed_all",
    )}  # fmt: skip
    zero = {name: lambda device=None: 0 for name in (
        "current_device", "max_memory_allocated", "max_memory_reserved", "memory_allocated",
        "memory_reserved",
    )}  # fmt: skip
    stand_ins: dict[str, Any] = nothing | zero | {
        "is_available": lambda: True, "is_initialized": lambda: True, "device_count": lambda: 1,
        "device": lambda device: contextlib.nullcontext(),
        "get_device_name": lambda device=None: properties.name,
        "get_device_properties": lambda device=None: properties,
        "get_device_capability": lambda device=None: (9, 0),
        "is_bf16_supported": lambda including_emulation=True: True,
        "synchronize": lambda device=None: card.wait("synchronize"),
        "set_sync_debug_mode": card.set_sync_debug_mode,
        "Event": Event, "Stream": stream, "stream": lambda stream: contextlib.nullcontext(),
        "current_stream": stream, "default_stream": stream,
        "CUDAGraph": Graph, "graph": Graph.capture, "graph_pool_handle": lambda: (0, 0),
        "is_current_stream_capturing": lambda: card.capturing is not None,
        "get_rng_state": lambda device=None: torch.get_rng_state(),
        "set_rng_state": lambda state, device=None: None,
    }  # fmt: skip
    for name, stand_in in stand_ins.items():
        setattr(torch.cuda, name, stand_in)
    tensor: Any = torch.Tensor
    tensor.pin_memory = lambda tensor, device=None: tensor.clone()
    tensor.is_pinned = lambda tensor, device=None: False
    torch.inference_mode = torch.no_grad  # type: ignore[assignment, misc]  # the wrappers have versions
    torch.nn.functional.scaled_dot_product_attention = _attention
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device=)
    torch._C._set_cudnn_enabled(False)  # its batch norm is not the CPU's
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # parameters keep their class
    card.__enter__()  # type: ignore[no-untyped-call]
    atexit.register(card.__exit__, None, None, None)
