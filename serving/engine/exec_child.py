"""An engine executed anew: vLLM's public entry point, watched so that it outlives no launcher.

Run by the launcher as `python -m serving.engine.exec_child ARGUMENTS`. The processes that vLLM
starts from here import this module again, as `__mp_main__`; they inherit no pipe, so the kernel
ends them with their parent.
"""

import logging
import os
import runpy
import sys
from pathlib import Path

from serving import logs
from serving.engine import lifeline, shared_memory, versions, vllm_share
from serving.engine.child import LIFELINE_VARIABLE
from serving.engine.reasoning import parser_named_in
from serving.engine.vllm_adapter import EXEC_MODULE
from serving.engine.vllm_patches import record_outputs

shared_memory.name_after(Path(os.environ["TMPDIR"]))

if __name__ == "__mp_main__":
    lifeline.die_with_parent()

if __name__ == "__main__":
    lifeline.watch(int(os.environ[LIFELINE_VARIABLE]))
    logs.configure("engine")
    # Imports of vLLM's set the root logger's level anew.
    logging.getLogger("penstock").setLevel(logging.INFO)
    build = versions.installed()
    if build is not None and build.reach.recorder:
        record_outputs(parser_named_in(sys.argv[1:]))
    else:
        # Usage is then what the gateway delivered and read in the answers.
        logs.get_logger("penstock.engine").warning("no_recorder", build=str(build))
    if "--headless" in sys.argv:
        vllm_share.execute(sys.argv[1:])
    else:
        runpy.run_module(EXEC_MODULE, run_name="__main__")
