"""Writes a schedule as C++: one function that does many steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bigmodel.engine.native.calls import Calls
from bigmodel.engine.native.memory import Memory
from bigmodel.engine.native.schedule import Schedule
from bigmodel.engine.native.values import Draw, Value

KERNELS = Path(__file__).with_name("kernels.cpp")


def write(
    schedule: Schedule, memory: Memory, metrics: Value, inputs: int, rates: int, draws: Sequence[Draw]
) -> str:
    """C++ of a library that does steps.

    Args:
        metrics: what a step returns, (4,) float32.
        inputs: the number of tensors that stay the same; those of the batch and the rates follow.
        rates: numbers in `StepInputs.rates`.
        draws: the random numbers that a step needs.
    """
    calls = Calls(schedule, memory)
    body = "\n".join(text for group in schedule.groups for text in calls.lines(group))
    drawn = "".join(f", drawn[{i}] + step * {draw.numbers}" for i, draw in enumerate(draws))
    listed = ";".join(f"{draw.numbers} {draw.share!r}" for draw in draws)
    copies = "\n".join(memory.copies())
    return f"""{KERNELS.read_text("utf-8")}
{chr(10).join(calls.functions)}

extern "C" {{
extern const i64 scratch_bytes;
extern const char draws[];
const char draws[] = "{listed}";
const i64 scratch_bytes = {memory.bytes + 4 * calls.panel_floats};

int run(i64 count, void** given, char* inputs, i64 inputs_step, char* targets, i64 targets_step,
        double* rates, float** drawn, float* metrics, char* scratch) {{
  int fault = 0;
  float* const panels = (float*)(scratch + {memory.bytes});
  for (i64 step = 0; step < count; step++) {{
    void* const batch[] = {{
      inputs + step * inputs_step, targets + step * targets_step, rates + step * {rates}{drawn}
    }};
{memory.declarations(inputs)}
{body}
{copies}
    __builtin_memcpy(metrics + 4 * step, {memory.name(metrics)}, 16);
  }}
  return fault;
}}
}}
"""
