"""Training and testing runs: mmengine's ``Runner``, and what is added to it.

runner        one call that checks, builds and runs
launch        joining many processes
fsdp          sharded training
cleanup       closing what a run leaves open
exact_resume  a stopped run goes on as if it had not been stopped
watch         stops training that cannot be worth anything
"""
