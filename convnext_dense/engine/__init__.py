"""Training and testing runs: mmengine's ``Runner`` and additions to it.

runner        checks a config, builds a Runner and runs it
build         builds the model alone, without a Runner
own_config    checks a checkpoint against a config, or names the config inside it
short_runs    logs the last iteration, and warns of a warm-up longer than the run
machine       fits a config to the GPUs and processes that there are
launch        joins the processes of a run
attempt       tidies up the work dir after a run that fails
work_dir_lock keeps a second training out of a work dir
fsdp          sharded training
cleanup       closes files and worker processes after a run
exact_resume  continues a stopped run as if it had never stopped
watch         stops runs that cannot learn
"""
