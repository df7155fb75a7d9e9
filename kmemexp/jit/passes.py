"""Which of Numba's passes a kernel needs: two thirds, and nothing about lifetimes.

A kernel has no closures, `with`, exceptions, array expressions or functions to be inlined in Numba's own IR, and counts
no references: so no variable has to be deleted, and nobody asks which are alive. Made for Numba 0.68.
"""

from typing import Any

from numba.core import compiler_machinery, typed_passes, untyped_passes
from numba.core.compiler import DefaultPassBuilder

FOREIGN = (
    untyped_passes.WithLifting, untyped_passes.InlineClosureLikes, untyped_passes.RewriteDynamicRaises,
    untyped_passes.MakeFunctionToJitFunction, untyped_passes.InlineInlinables, untyped_passes.FindLiterallyCalls,
    untyped_passes.RewriteSemanticConstants, untyped_passes.DeadBranchPrune, untyped_passes.LiteralUnroll,
    untyped_passes.LiteralPropagationSubPipelinePass, typed_passes.InlineOverloads, typed_passes.DumpParforDiagnostics,
    typed_passes.NopythonRewrites, typed_passes.IRLegalization,
)  # fmt: skip
"""Passes for what no kernel has. The last adds the statements that delete variables."""


class Passes(compiler_machinery.PassManager):
    """Runs passes without measuring and announcing each."""

    def _runPass(self, index: int, pss: Any, internal_state: Any) -> None:  # noqa: N802 - Numba's name
        _ = index
        pss.analysis = self._analysis
        pss.run_initialization(internal_state)
        pss.run_pass(internal_state)
        pss.run_finalizer(internal_state)


def chosen(state: Any, lowering: type, without: tuple[type, ...]) -> Any:
    """Numba's passes for compiled code but `without`, the last of them replaced by `lowering`."""
    numba_s = DefaultPassBuilder.define_nopython_pipeline(state)
    manager = Passes(numba_s.pipeline_name) if without else numba_s
    kept = [(p, text) for p, text in numba_s.passes if p not in without]
    manager.passes = [(lowering if p is typed_passes.NativeLowering else p, text) for p, text in kept]
    manager.finalize()
    return manager
