"""How it is told that memory ran out: on a CPU, on a device, and in the libraries that compute there."""

from __future__ import annotations

import re

import torch

_WORDS = (
    # torch's allocators, where they do not raise an error of their own
    r"DefaultCPUAllocator: (can't allocate memory|not enough memory): you tried to allocate",
    r"^std::bad_alloc$",
    r"^MPS backend out of memory",
    # CUDA itself: page-locked memory, graphs, contexts, memory that grows (expandable segments)
    r"^(CUDA|HIP)( driver)? error: out of memory",
    r"^Triton Error \[(CUDA|HIP)\]: out of memory",
    # cuBLAS; one whose handle finds no memory was not initialised
    r"^CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling",
    r"^CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublas(Lt)?Create",
    r"^cuDNN (Frontend )?error: .*CUDNN_STATUS_(ALLOC|INTERNAL_ERROR_(HOST|DEVICE)_ALLOCATION)_FAILED",
)
"""They are worded in torch's c10/core/impl/alloc_cpu.cpp, c10/cuda/CUDAException.cpp,
c10/cuda/driver_api.h, aten/src/ATen/cuda/Exceptions.h."""

_OUT_OF_MEMORY = re.compile("|".join(_WORDS))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was too little memory, on any device, and nothing else."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None
