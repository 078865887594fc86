"""Lack of memory is known by torch's own words for it, and nothing else is."""

import pytest
import torch

from bigmodel.runtime.memory import is_out_of_memory

SEARCH = (
    "\nSearch for `cudaErrorMemoryAllocation' in https://docs.nvidia.com/cuda/cuda-runtime-api/"
    "group__CUDART__TYPES.html for more information.\nCUDA kernel errors might be asynchronously"
    " reported at some other API call, so the stacktrace below might be incorrect.\n"
)
LACKING = {
    "CPU": "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory:"
    " you tried to allocate 1099511627776 bytes. Error code 12 (Cannot allocate memory)",
    "CPU, Windows": "[enforce fail at alloc_cpu.cpp:117] data. DefaultCPUAllocator: not enough memory:"
    " you tried to allocate 911360 bytes.",
    "C++": "std::bad_alloc",
    "MPS": "MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 1.00 GB, max allowed:"
    " 9.07 GB). Tried to allocate 256 bytes on private pool.",
    "page-locked memory, graphs": f"CUDA error: out of memory{SEARCH}",
    "driver": "CUDA driver error: out of memory",
    "HIP": "HIP error: out of memory",
    "Triton": "Triton Error [CUDA]: out of memory",
    "cuBLAS": "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuBLAS's handle": "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "cuBLASLt's handle": "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling"
    " `cublasLtCreate(&handle)`",
    "cuDNN": "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN 9, device": "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "cuDNN 9, host": "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
}
OTHERS = (
    "CUDA error: device-side assert triggered",
    "CUDA error: an illegal memory access was encountered",
    "CUDA error: operation not permitted when stream is capturing",
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(handle, opa, opb, m, n, k)`",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasSetStream(handle, stream)`",
    "CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx(handle)`",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
    "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    "unable to mmap 4096 bytes from file </torch_1>: Cannot allocate memory (12)",
    "mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)",
    "a caption of the data: CUDA error: out of memory",
)


@pytest.mark.parametrize("words", LACKING.values(), ids=LACKING)
def test_lack_of_memory_is_known(words: str) -> None:
    assert is_out_of_memory(RuntimeError(words))


@pytest.mark.parametrize("words", OTHERS)
def test_other_errors_are_not_taken_for_it(words: str) -> None:
    assert not is_out_of_memory(RuntimeError(words))


def test_only_torch_s_own_errors_count() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    assert not is_out_of_memory(ValueError(LACKING["cuDNN"]))


def test_torch_says_so_of_a_cpu() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
