"""PyTorch on the same models, weights and inputs: eager in float32, TF32 and channels-last float16, and compiled.

What `variants.measure_variants` asks of a framework.
"""

from contextlib import suppress

import numpy as np

from gpu_phases.prepare import RESNET, TORCH, error_from_float32
from gpu_phases.timing import EVENTS, WALL, wall_ms
from keras_matting.model_folder import Preset

PHASE, NAME = "torch", "PyTorch"
VARIANTS = {
    "torch-strict": {"precision": "f32"},
    "torch-tf32": {"precision": "tf32"},
    "torch-half": {"precision": "fp16"},
    "torch-compile": {"precision": "fp16", "compiled": True},
}


def has(model_dir):
    """Tell whether there is a PyTorch module of a model."""
    return Preset.load(model_dir).architecture in TORCH


def module_of(model_dir):
    """Return a model folder's PyTorch module, the matte alone, with the weights that `prepare` wrote."""
    import torch
    import torch_modnet
    import torch_resnet50
    import torch_u2net

    architecture = Preset.load(model_dir).architecture
    if architecture == "modnet":
        module = torch_modnet.MODNet()
        whole = torch_modnet.Inference(module)
    elif architecture == RESNET:
        module = whole = torch_resnet50.ResNet50()
    else:
        module = whole = torch_u2net.U2Net(torch_u2net.TABLES[architecture])
    with np.load(model_dir / "gpu" / "weights.npz") as arrays:
        for name, tensor in module.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                array = arrays[name.replace("lr_branch.backbone.", "backbone.")]
                tensor.copy_(torch.from_numpy(array).reshape(tensor.shape))
    return whole.eval()


class Variant:
    """One module in one precision on the device; a call takes and returns device memory, NCHW."""

    def __init__(self, model_dir, device, precision, compiled=False):
        import torch

        self.torch, self.device, self.tf32 = torch, device, precision == "tf32"
        self.dtype = torch.float16 if precision == "fp16" else torch.float32
        self.layout = torch.channels_last if precision == "fp16" else torch.contiguous_format
        self.compiled = compiled
        module = module_of(model_dir).to(device, self.dtype, memory_format=self.layout)
        self._module = torch.compile(module, mode="reduce-overhead") if compiled else module

    def __call__(self, image):
        self.torch.backends.cudnn.allow_tf32 = self.torch.backends.cuda.matmul.allow_tf32 = self.tf32
        with self.torch.inference_mode():
            return self._module(image)

    def prepared(self, batch):
        """Return a batch (N, H, W, 3) of pinned or device memory as the module takes it."""
        image = batch.permute(0, 3, 1, 2).to(self.device, self.dtype, non_blocking=True)
        return image.contiguous(memory_format=self.layout)

    def error(self, prepared):
        """See `prepare.error_from_float32`."""
        mattes = [self(self.prepared(self.torch.from_numpy(image[None]))) for image in prepared["images"]]
        mattes = np.concatenate([matte.float().cpu().numpy() for matte in mattes])
        return error_from_float32(mattes.transpose(0, 2, 3, 1) if mattes.ndim == 4 else mattes, prepared)

    def runner(self, batch):
        """See `timing.runner`."""
        return _Runner(self, batch)


class _Runner:
    """See `timing.runner`."""

    def __init__(self, variant, batch):
        torch, self._variant = variant.torch, variant
        self._on_gpu = variant.device == "cuda"
        self.clock = EVENTS if self._on_gpu else WALL
        self._host = torch.from_numpy(batch).pin_memory() if self._on_gpu else torch.from_numpy(batch)
        self._image = variant.prepared(self._host)
        self._matte = torch.empty(variant(self._image).shape, pin_memory=self._on_gpu)
        self._graph = None
        if self._on_gpu and len(batch) == 1 and not variant.compiled:  # compiled, it is launched as one already
            self._record(torch)

    def host_ms(self, calls):
        return wall_ms(self._from_host, calls)

    def device_ms(self, calls):
        return self._ms(lambda: self._variant(self._image), calls)

    def graph_ms(self, calls):
        return self._ms(self._graph.replay, calls) if self._graph else None

    def _from_host(self):
        self._matte.copy_(self._variant(self._variant.prepared(self._host)), non_blocking=True)
        self._synchronize()

    def _record(self, torch):
        graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._variant(self._image)
        torch.cuda.current_stream().wait_stream(side)
        with suppress(RuntimeError):  # where a model cannot be recorded there is no figure
            with torch.cuda.graph(graph):
                self._variant(self._image)
            self._graph = graph

    def _ms(self, call, calls):
        if not self._on_gpu:
            return wall_ms(call, calls)
        cuda, milliseconds = self._variant.torch.cuda, []
        for _ in range(calls):
            start, end = (cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            end.synchronize()
            milliseconds.append(start.elapsed_time(end))
        return milliseconds

    def _synchronize(self):
        if self._on_gpu:
            self._variant.torch.cuda.synchronize()
