"""One training job, from the configuration to the compiled step and its checkpoints.

To follow one update from the command, ``python -m experiments train``, to the compiled step, read
six files in this order:

1. ``experiments/train.py``: reads the options.
2. ``training/job.py``: ``train`` makes a program of each norm and trains the seeds with it.
3. ``training/program.py``: ``build_program`` puts network, schedule and optimizer together and
   binds them to the step; ``compile_program`` compiles it.
4. ``training/parallel/transform.py``: ``jit`` (or ``shard_map``, ``pmap``) of the step over the
   devices; its ``Step`` places a batch and calls what was compiled.
5. ``training/loop.py``: ``train_seeds`` takes the norms in turns, ``train_stretch`` makes the
   updates between two evaluations and writes their rows.
6. ``training/steps.py``: ``train_step``, the update itself: a pure function of state and batch.

``run.py`` has what belongs to one norm and seed: its state, batches, records, probe and
checkpoints; ``rows.py`` fetches the numbers of updates as they come; ``schedules.py`` has the
learning rate of an update; ``record.py``, ``probing.py`` and ``checkpoint/`` what a run leaves on
disk, ``mirror.py`` its copy elsewhere; ``run_folder.py`` and ``preemption.py`` how it is begun,
stopped and resumed; ``overview.py`` how large the networks are, ``profiling.py`` a trace of
updates; ``distributed.py`` how several processes make one job; ``restored.py`` gives the networks
of a finished one.
"""
